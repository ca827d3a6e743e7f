import type { Command } from 'commander'
import type { Compared } from '../../parity/parity.ts'
import type { Io } from '../io.ts'
import { addImageAccess, type SourceFlags } from '../options.ts'
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
}

/** `parity IMAGE…`: our commands beside qemu-img's. */
export function declare(command: Command, io: Io): void {
  command
    .description('Runs qemu-img and this program on images, and compares what they print.')
    .argument('<image...>', 'raw or qcow2 file, or block device')
  addImageAccess(command, 'by its first bytes')
    .option('--against <program>', 'the qemu-img to compare with (default: the one in PATH)')
    .option('--json', 'print the comparisons as one JSON array')
    .addHelpText('after', HELP)
    .action((images: string[], flags: ParityFlags) => parity(io, images, flags))
}

async function parity(io: Io, images: string[], flags: ParityFlags): Promise<void> {
  const { compareWithQemuImg } = await import('../../api/parity.ts')
  const { against, format, allowPath: allowPaths, backingFormat, forceShare } = flags
  await io.interruptible(async (signal) => {
    const options = { against, format, allowPaths, backingFormat, forceShare, signal }
    const found = compareWithQemuImg(images, options)
    await printFindings(io, found, flags, describe, 'parity', 'comparisons with qemu-img differ')
  })
}

function describe({ image, command, same, status, difference = '' }: Compared): string {
  return `${image}: ${command}: ${same ? `same, status ${status}` : 'different'}\n${difference}`
}
