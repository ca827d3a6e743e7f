import type { CommandIo, QemuImgCommand } from '../qemu-img/command.ts'
import { HelpRequest } from '../qemu-img/getopt.ts'
import { errorText, QemuImgError } from '../qemu-img/messages.ts'
import { type Io, STANDARD } from './io.ts'

/** The commands that mirror qemu-img's, each with its summary. */
export const QEMU_IMG_COMMANDS = {
  info: 'describe an image, as qemu-img info does',
  check: 'check an image for errors, and repair them, as qemu-img check does',
  map: 'print where guest data is stored, as qemu-img map does',
  compare: 'compare the content of two images, as qemu-img compare does',
  bitmap: 'change a dirty bitmap of an image, as qemu-img bitmap does',
  rebase: 'let an image build on another backing file, as qemu-img rebase does',
  measure: 'calculate the size of a new image, as qemu-img measure does',
} as const

/** Output streams of such a command, and the signal that may stop it. */
export type QemuImgIo = CommandIo & Partial<Pick<Io, 'interruptible'>>

type Name = keyof typeof QEMU_IMG_COMMANDS

/** Loaded one by one, without the other commands' modules: most of these run for an instant. */
const LOAD: Record<Name, () => Promise<{ command: QemuImgCommand }>> = {
  info: () => import('./commands/qemu-img/info.ts'),
  check: () => import('./commands/qemu-img/check.ts'),
  map: () => import('./commands/qemu-img/map.ts'),
  compare: () => import('./commands/qemu-img/compare.ts'),
  bitmap: () => import('./commands/qemu-img/bitmap.ts'),
  rebase: () => import('./commands/qemu-img/rebase.ts'),
  measure: () => import('./commands/qemu-img/measure.ts'),
}

/** Hints that qemu-img has no words for; everything else is printed exactly as it does. */
const OURS: Partial<Record<string, string>> = {
  allowPaths: '--allow-path',
  backingFormat: '--backing-format',
}

/** Whether a command is one that takes its arguments as qemu-img's does. */
export function isQemuImgCommand(name: string | undefined): name is Name {
  return name !== undefined && Object.hasOwn(LOAD, name)
}

/**
 * Runs such a command: its output on each stream is the output of qemu-img.
 * @param io where it prints; default: the standard streams
 * @returns the exit status, qemu-img's
 */
export async function runQemuImg(
  name: Name,
  argv: readonly string[],
  io: QemuImgIo = STANDARD,
): Promise<number> {
  const { command } = await LOAD[name]()
  try {
    // Without handlers of signals, as in tests, it just runs.
    const { interruptible } = io
    if (!interruptible) return await command.run(argv, io)
    return await interruptible((signal) => command.run(argv, { ...io, signal }))
  } catch (error) {
    if (error instanceof HelpRequest) {
      await io.stdout(command.help)
      return 0
    }
    if (!(error instanceof QemuImgError)) throw error
    io.stderr(errorText(error, await remedy(error)))
    if (argv.includes('--debug')) io.stderr(`${error.stack}\n`)
    return error.status
  }
}

async function remedy(error: QemuImgError): Promise<string> {
  if (error.hint === undefined) return ''
  // Loaded only now: it knows commander, which takes as long to load as an image takes to describe.
  const { remedyOf } = await import('./wording.ts')
  return remedyOf(error, (argument) => OURS[argument])
}
