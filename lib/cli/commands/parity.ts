import type { Command } from 'commander'
import type { Compared } from '../../parity/parity.ts'
import type { Io } from '../io.ts'
import { addImageAccess, addProgressOptions, type SourceFlags } from '../options.ts'
import { openProgress } from '../progress.ts'
import { printFindings } from '../report.ts'

const HELP = `
Runs info, check, map and measure, for people and as JSON, once by qemu-img and once by this
program, and compares outputs and exit statuses byte for byte. Each difference is shown as a diff.

Exit status: 0 no difference, 1 differences.

Examples:
  qcow2-backup parity backup.qcow2
  qcow2-backup parity --json --against /opt/qemu/bin/qemu-img full.qcow2 monday.qcow2
  qcow2-backup parity --allow-path /srv/base overlay.qcow2`

interface ParityFlags extends SourceFlags {
  against?: string
  json?: boolean
  progress?: 'json' | false
}

/** `parity IMAGE…`: our commands beside qemu-img's. */
export function declare(command: Command, io: Io): void {
  command
    .description('Runs qemu-img and this program on images, and compares what they print.')
    .argument('<image...>', 'raw or qcow2 file, or block device')
  addProgressOptions(addImageAccess(command, 'by its first bytes'))
    .option('--against <program>', 'the qemu-img to compare with (default: the one in PATH)')
    .option('--json', 'print the comparisons as one JSON array')
    .addHelpText('after', HELP)
    .action((images: string[], flags: ParityFlags) => parity(io, images, flags))
}

async function parity(io: Io, images: string[], flags: ParityFlags): Promise<void> {
  const { compareWithQemuImg } = await import('../../api/parity.ts')
  const { against, format, allowPath: allowPaths, backingFormat, forceShare } = flags
  const progress = openProgress(flags.progress, io)
  // A line must not be drawn over by the bar, which may be on the same terminal.
  const above = { ...io, stdout: (text: string) => progress.around(() => io.stdout(text)) }
  await io.interruptible(async (signal) => {
    const access = { against, format, allowPaths, backingFormat, forceShare }
    const options = { ...access, signal, onProgress: progress.update }
    try {
      const found = compareWithQemuImg(images, options)
      const what = 'comparisons with qemu-img differ'
      await printFindings(above, found, flags, describe, 'parity', what)
    } finally {
      progress.close()
    }
  })
}

function describe({ image, command, same, status, difference = '' }: Compared): string {
  return `${image}: ${command}: ${same ? `same, status ${status}` : 'different'}\n${difference}`
}
