import type { Command } from 'commander'
import { BACKUP_OPTIONS, backupMachine } from '../../api/machine.ts'
import type { BackupMachineResult, DiskBackup } from '../../live/types.ts'
import { formatSize } from '../../units.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printResult } from '../print-result.ts'
import { runWithProgress } from '../progress-display.ts'
import { REPOSITORY_OPTIONS, requireRepository } from '../repository-flags.ts'

const HELP = `
MACHINE is libvirt:DOMAIN, qmp:SOCKET (the monitor of a QEMU), or disk:NAME=SOURCE[,NAME=SOURCE...] for
disks at rest (--name names the machine; a comma in a name is written twice). Each disk gets a bitmap
that records what is written from then on, so the next backup copies only that: where a bitmap was lost
or cannot be, the disk is backed up in full, and the result says why. Nothing has its name in the
repository before all disks are complete.

Examples:
  qcow2-backup backup disk:vda=disk.qcow2 --name web1 --repo backups
  qcow2-backup backup disk:vda=disk.qcow2,vdb=disk.raw --name web1 --repo backups --compress zstd
  qcow2-backup restore --repo backups web1 --disk vda restored.raw`

const OPTIONS = { ...REPOSITORY_OPTIONS, ...BACKUP_OPTIONS }

/** `backup MACHINE --repo DIR`: a point in time of a machine into a repository. */
export function declare(command: Command, io: Io): void {
  command
    .description('Backs up a machine, all its disks of one instant, into a repository.')
    .argument('<machine>', 'what to back up')
  addOutputFlags(addFlags(command, OPTIONS))
    .addHelpText('after', HELP)
    .action(async (machine: string, flags: OutputFlags) => {
      const { repository, ...options } = optionsFrom(flags, OPTIONS)
      const repo = requireRepository(repository)
      const result = await runWithProgress(io, flags, (control) =>
        backupMachine(machine, repo, { ...options, ...control }),
      )
      await printResult(io, flags, result, describe)
    })
}

function describe({ record, disks, elapsedSeconds, notes }: BackupMachineResult): string[] {
  return [
    `${record}: complete, ${elapsedSeconds.toFixed(2)} s`,
    ...disks.flatMap(describeDisk),
    ...notes.map((note) => `  note: ${note}`),
  ]
}

function describeDisk({ name, kind, reason, dataBytes, zeroBytes, ...disk }: DiskBackup): string[] {
  const why = reason === undefined ? '' : ` (${reason})`
  const { unchangedBytes, virtualSize, allocatedBytes } = disk
  const unchanged = unchangedBytes > 0 ? `, ${formatSize(unchangedBytes)} unchanged` : ''
  return [
    `  ${name}: ${kind}${why}`,
    `    disk ${formatSize(virtualSize)}: ${formatSize(dataBytes)} data, ` +
      `${formatSize(zeroBytes)} zero${unchanged}; ${formatSize(allocatedBytes)} in ${disk.image}`,
  ]
}
