import { createRequire } from 'node:module'
import { Command } from 'commander'
import type { Io } from './io.ts'
import { QEMU_IMG_COMMANDS } from './qemu-img.ts'

/** A command's module, loaded only when the command is used. */
interface CommandModule {
  /** Gives the command its arguments, options, help and action. */
  declare(command: Command, io: Io): void
}

const COMMANDS: readonly { name: string; summary: string; load(): Promise<CommandModule> }[] = [
  {
    name: 'full',
    summary: 'back up a whole disk into a new qcow2 image',
    load: () => import('./commands/full.ts'),
  },
  {
    name: 'incremental',
    summary: 'back up what changed since the previous backup',
    load: () => import('./commands/incremental.ts'),
  },
  {
    name: 'restore',
    summary: 'write the content of a backup, or of a machine in a repository, to new disks',
    load: () => import('./commands/restore.ts'),
  },
  {
    name: 'backup',
    summary: 'back up a machine, all its disks of one instant, into a repository',
    load: () => import('./commands/backup.ts'),
  },
  {
    name: 'list',
    summary: 'list the points in time that a repository has',
    load: () => import('./commands/list.ts'),
  },
  {
    name: 'prune',
    summary: 'remove the points in time of a repository that no rule keeps',
    load: () => import('./commands/prune.ts'),
  },
  {
    name: 'copy',
    summary: 'copy machines, or points of them, to another repository',
    load: () => import('./commands/copy.ts'),
  },
  {
    name: 'machine',
    summary: "describe a machine's disks and what backups are possible; clean up after killed runs",
    load: () => import('./commands/machine.ts'),
  },
  {
    name: 'extents',
    summary: 'print which parts of a disk hold data, as JSON',
    load: () => import('./commands/extents.ts'),
  },
  {
    name: 'serve',
    summary: 'serve disks over HTTP to the clients of ovirt-imageio',
    load: () => import('./commands/serve.ts'),
  },
  {
    name: 'chain',
    summary: 'check the dirty bitmaps along a backing chain',
    load: () => import('./commands/chain.ts'),
  },
  {
    name: 'diff',
    summary: 'add a bitmap of the differences from a known state of the disk',
    load: () => import('./commands/diff.ts'),
  },
  {
    name: 'snapshot',
    summary: 'make an overlay over an image, in which its dirty bitmaps continue',
    load: () => import('./commands/snapshot.ts'),
  },
  {
    name: 'commit',
    summary: 'merge overlays into the image below them, with their dirty bitmaps',
    load: () => import('./commands/commit.ts'),
  },
  {
    name: 'verify',
    summary: 'verify backups: their structure, and their content where it was recorded',
    load: () => import('./commands/verify.ts'),
  },
  {
    name: 'report',
    summary: 'make a page that shows the state of a repository, or of an image and its chain',
    load: () => import('./commands/report.ts'),
  },
  {
    name: 'repository',
    summary: 'put right what can be in a repository',
    load: () => import('./commands/repository.ts'),
  },
  {
    name: 'parity',
    summary: 'run qemu-img and this program on images, and compare what they print',
    load: () => import('./commands/parity.ts'),
  },
]

const HELP = `
SOURCE is a raw or qcow2 file, a block device, an NBD URI (nbd://HOST[:PORT]/EXPORT,
nbd+unix:///EXPORT?socket=PATH, and nbds for TLS), or the URL of a disk that oVirt's imageio hands out,
https://HOST[:PORT]/images/TICKET. Sizes are bytes, or 64K, 1M, 2G, 1T.
Exit status: 0 done, 1 failed, 2 wrong usage, 129, 130 or 143 interrupted.

Examples:
  qcow2-backup full /dev/vg0/disk backup.qcow2
  qcow2-backup incremental disk.qcow2 monday.qcow2 --bitmap sunday --backing backup.qcow2
  qcow2-backup restore backup.qcow2 disk.raw
  qcow2-backup extents disk.qcow2
  qcow2-backup full --help`

/**
 * The command line's grammar. Commands are listed by name and summary only; a command's module is
 * loaded when it runs, so that starting costs the same however many commands there are.
 * @param help takes the text of help and version, which is not printed here: commander does not wait
 * for its output
 */
export function buildProgram(io: Io, help: (text: string) => void): Command {
  const { version } = createRequire(import.meta.url)('qcow2-backup/package.json')
  const program = new Command('qcow2-backup')
    .description('Backs up VM disks into standard qcow2 images, and restores them.')
    .version(version)
    .option('--debug', 'print the stack of an error')
    .addHelpText('after', HELP)
    .enablePositionalOptions()
    .showSuggestionAfterError(false)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeOut: help, writeErr: () => {} })
  for (const { name, summary } of COMMANDS) program.command(name).summary(summary)
  // Only to be listed: they read their arguments as qemu-img does, and so never come here.
  for (const [name, summary] of Object.entries(QEMU_IMG_COMMANDS)) {
    program.command(name).summary(summary)
  }
  program.hook('preSubcommand', async (_program, command) => {
    const { load } = COMMANDS.find(({ name }) => name === command.name())!
    const module = await load()
    command.option('--debug', 'log decisions with their reasons, and the stack of an error')
    module.declare(command, io)
  })
  return program
}
