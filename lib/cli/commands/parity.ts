import type { Command } from 'commander'
import { compareWithQemuImg, PARITY_OPTIONS } from '../../api/parity.ts'
import type { CommandComparison } from '../../parity/parity.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { isSame, printFindings } from '../report.ts'

const HELP = `
Runs info, check, map and measure with human and JSON output, in qemu-img and in this program, and
compares output and exit status byte for byte. Each difference is printed as a diff.

Exit status: 0 no difference, 1 differences.

Examples:
  qcow2-backup parity backup.qcow2
  qcow2-backup parity --json --against /opt/qemu/bin/qemu-img full.qcow2 monday.qcow2
  qcow2-backup parity --allow-path /srv/base overlay.qcow2`

/** `parity IMAGE…`: our commands beside qemu-img's. */
export function declare(command: Command, io: Io): void {
  command
    .description('Runs qemu-img and this program on images, and compares what they print.')
    .argument('<image...>', 'raw or qcow2 file, or block device')
  addOutputFlags(addFlags(command, PARITY_OPTIONS), 'print the comparisons as one JSON array')
    .addHelpText('after', HELP)
    .action((images: string[], flags: OutputFlags) =>
      printFindings(
        io,
        flags,
        (control) =>
          compareWithQemuImg(images, { ...optionsFrom(flags, PARITY_OPTIONS), ...control }),
        {
          describe,
          isGood: isSame,
          subject: 'parity',
          failures: 'comparisons with qemu-img differ',
        },
      ),
    )
}

function describe({ image, command, same, status, difference }: CommandComparison): string[] {
  const verdict = same ? `same, status ${status}` : 'different'
  const lines = difference?.trimEnd().split('\n') ?? []
  return [`${image}: ${command}: ${verdict}`, ...lines]
}
