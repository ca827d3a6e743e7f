import type { Command } from 'commander'
import type { BackupError, Hint } from '../errors.ts'
import { Flag } from './flags.ts'

/** The command's name for an argument of the library; undefined if it has none. */
export type Naming = (argument: string) => string | undefined

/** Parameters of the library's functions whose operands have another name. */
const OPERANDS: Record<string, string> = { images: 'image', disk: 'image' }

/** The names that a command gives to the library's arguments: its operands and flags. */
export function namingOf(command: Command | undefined): Naming {
  return (argument) => {
    const operands = [argument, OPERANDS[argument]]
    const operand = command?.registeredArguments.find((one) => operands.includes(one.name()))
    if (operand) return operand.name().toUpperCase()
    const flag = command?.options.find((one) => one instanceof Flag && one.key === argument)
    return flag?.long
  }
}

/** The effect of each hint's option; `%` is the flag with its value. */
const REMEDIES: Record<Hint, string> = {
  force: '% replaces it',
  forceShare: '% reads the image as it is',
  allowPaths: 'allow it with %',
  backingFormat: 'say what it is with %',
  baselineFormat: 'say what it is with %',
  format: 'say what it is with %',
  timeoutMs: '% sets how long to wait',
}

/** The remedy that an error hints at, to follow its reason; empty if there is none. */
export function remedyOf({ code, hint, hintValue }: BackupError, naming: Naming): string {
  const name = hint && naming(hint)
  if (hint === undefined || name === undefined) return ''
  const flag = hintValue === undefined ? name : `${name} ${hintValue}`
  if (code === 'UNSUPPORTED' && hintValue === 'raw') return `; ${flag} takes its bytes as they are`
  const remedy = hint === 'force' && code !== 'TARGET_EXISTS' ? '% overrides that' : REMEDIES[hint]
  return `; ${remedy.replace('%', () => flag)}`
}

/** An error of the library as a command prints it: `WHAT: WHY; REMEDY`. */
export function wordError(error: BackupError, naming: Naming): string {
  const { argument, message, why } = error
  const text = argument === undefined ? message : `${naming(argument) ?? argument}: ${why}`
  return text + remedyOf(error, naming)
}
