// `npm run demo`: a small disk with a real file system on it is backed up, checked and restored.
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const CLI = join(import.meta.dirname, '../lib/cli/main.cjs')

/** Runs commands in a folder of its own, each with a line that says its purpose. */
class Show {
  readonly folder = mkdtempSync(join(tmpdir(), 'qcow2-backup-demo-'))

  /** @throws Error if the command's exit status is not 0 */
  step(why: string, command: string): void {
    console.log(`\n# ${why}\n$ ${command}`)
    const [name, ...args] = command.match(/'[^']*'|\S+/g)!.map((word) => word.replaceAll("'", ''))
    const ours = name === 'qcow2-backup'
    const { status, error } = spawnSync(
      ours ? process.execPath : name,
      ours ? [CLI, ...args] : args,
      // mkfs and e2fsck lie where only root's PATH leads.
      {
        cwd: this.folder,
        stdio: 'inherit',
        env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
      },
    )
    if (error) throw error
    if (status !== 0) throw new Error(`the command ended with status ${status}`)
  }

  close(): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** The files that the demo's disk holds: a line of text and 12 MiB that nothing can compress. */
function writeFiles(folder: string): void {
  mkdirSync(join(folder, 'files'))
  writeFileSync(join(folder, 'files/note.txt'), 'I have been through a backup and a restore.\n')
  writeFileSync(join(folder, 'files/video.bin'), randomBytes(12 << 20))
}

function play(show: Show): void {
  writeFiles(show.folder)
  show.step('A disk of 512 MiB, sparse as a new VM disk is.', 'truncate -s 512M disk.raw')
  show.step('A real file system on it, with two files.', 'mkfs.ext4 -q -d files disk.raw')
  show.step('Which parts of it hold data?', 'qcow2-backup extents disk.raw')
  show.step(
    'The full backup. What reads as zero is not stored.',
    'qcow2-backup full disk.raw backup.qcow2',
  )
  show.step(
    'QEMU sees a standard qcow2 image, much smaller than the disk.',
    'qemu-img info backup.qcow2',
  )
  show.step('QEMU finds its metadata sound and nothing fragmented.', 'qemu-img check backup.qcow2')
  show.step('QEMU reads the same content from both.', 'qemu-img compare disk.raw backup.qcow2')
  show.step('Restore it to a new disk.', 'qcow2-backup restore backup.qcow2 restored.raw')
  show.step('Every byte is as it was.', 'cmp disk.raw restored.raw')
  show.step('The file system on the restored disk is sound.', 'e2fsck -fn restored.raw')
  show.step('And the note can be read from it.', "debugfs -R 'cat note.txt' restored.raw")
}

// Ctrl-C ends the command that runs; its failure is reported below.
process.on('SIGINT', () => {})
const show = new Show()
try {
  play(show)
  console.log('\nDone: backed up, checked and restored; nothing is left behind.')
} catch (error) {
  console.error(`demo: ${(error as Error).message}`)
  process.exitCode = 1
} finally {
  show.close()
}
