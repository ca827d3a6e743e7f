import type { Command } from 'commander'
import {
  ABORT_OPTIONS,
  abortMachine,
  inspectMachine,
  type MachineReport,
} from '../../api/machine.ts'
import { argumentError, usageError } from '../../errors.ts'
import type { Ability, Leftover, MachineDisk } from '../../machine/machine.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { printResult } from '../print-result.ts'

const HELP = `
machine abort MACHINE removes exactly what killed runs left behind. The next backup does that by itself.
With --repo it is told apart which of them had stored their backup: their bitmaps stay.

Examples:
  qcow2-backup machine disk:vda=disk.qcow2 --name web1
  qcow2-backup machine abort disk:vda=disk.qcow2 --name web1`

/** `machine MACHINE` and `machine abort MACHINE`. */
export function declare(command: Command, io: Io): void {
  command
    .description("Describes a machine's disks, and what backups of them are possible.")
    .usage('[abort] [options] <machine>')
    .argument('<machine>', 'what to look at; or abort, before it')
    .argument('[aborted]', 'what to clean up')
    .option('--json', 'print the result as JSON')
  addFlags(command, ABORT_OPTIONS)
    .addHelpText('after', HELP)
    .action(async (machine: string, aborted: string | undefined, flags: { json?: boolean }) => {
      const { repository, ...options } = optionsFrom(flags, ABORT_OPTIONS)
      if (machine === 'abort' && aborted !== undefined) {
        const removed = await io.interruptible((signal) =>
          abortMachine(aborted, { ...options, repository, signal }),
        )
        await printResult(io, flags, removed, (all) => all.map((one) => `removed ${what(one)}`))
        return
      }
      if (aborted !== undefined) throw usageError('arguments', 'expected 1, got 2')
      if (repository !== undefined) throw argumentError('repository', 'is for machine abort')
      const report = await io.interruptible((signal) =>
        inspectMachine(machine, { ...options, signal }),
      )
      await printResult(io, flags, report, describe)
    })
}

function describe({ name, disks, leftovers }: MachineReport): string[] {
  return [
    name,
    ...disks.flatMap(describeDisk),
    ...leftovers.map((one) => `  left by a run that was killed: ${what(one)}`),
  ]
}

function describeDisk(disk: MachineDisk): string[] {
  const { name, format, virtualSize, path, node, bitmaps, full, incremental } = disk
  const where = [path, node && `node ${node}`].filter(Boolean).join(', ')
  return [
    `  ${name}: ${format}, ${formatSize(virtualSize)}${where && `, ${where}`}`,
    `    full backup: ${able(full)}; incremental ones after it: ${able(incremental)}`,
    ...bitmaps.map(
      (bitmap) =>
        `    bitmap ${bitmap.name}: ${bitmap.valid ? 'valid' : bitmap.reasons.join('; ')}`,
    ),
  ]
}

function able({ possible, reason }: Ability): string {
  return possible ? 'possible' : `not possible${reason === undefined ? '' : `, ${reason}`}`
}

function what({ kind, name, disk, run }: Leftover): string {
  return `${kind} ${name}${disk === undefined ? '' : ` of disk ${disk}`} (run ${run})`
}
