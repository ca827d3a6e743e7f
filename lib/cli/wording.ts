import type { BackupError, Hint } from '../errors.ts'

/** Options whose flag is not their key in kebab case. */
const FLAGS: Record<string, string> = {
  to: '--output-format',
  allowPaths: '--allow-path',
  timeoutMs: '--timeout',
}

/** Parameters of the library's functions that are operands on the command line. */
const OPERANDS = new Set([
  'source',
  'target',
  'backup',
  'image',
  'images',
  'top',
  'overlay',
  'baseline',
  'disk',
])

/** What a parameter or option of the library is called on the command line. */
export function flagOf(argument: string): string {
  if (OPERANDS.has(argument)) return argument.toUpperCase()
  const kebab = argument.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
  return Object.hasOwn(FLAGS, argument) ? FLAGS[argument] : `--${kebab}`
}

/** What each hint's option does, `%` standing for the flag with its value. */
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
export function remedyOf({ code, hint, hintValue }: BackupError): string {
  if (hint === undefined) return ''
  const name = hint === 'format' ? '-f' : flagOf(hint)
  const flag = hintValue === undefined ? name : `${name} ${hintValue}`
  if (code === 'UNSUPPORTED' && hintValue === 'raw') return `; ${flag} takes its bytes as they are`
  const remedy = hint === 'force' && code !== 'TARGET_EXISTS' ? '% overrides that' : REMEDIES[hint]
  return `; ${remedy.replace('%', () => flag)}`
}

/** An error of the library as the command line tells it: `WHAT: WHY; REMEDY`. */
export function wordError(error: BackupError): string {
  const { argument, message, why } = error
  const text = argument === undefined ? message : `${flagOf(argument)}: ${why}`
  return text + remedyOf(error)
}
