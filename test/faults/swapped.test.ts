/**
 * What takes the place of a file while the program looks at its name: a FIFO, whose opening waits for
 * a writer, a device, and a link that leads to somebody else's file. The exchange happens before each
 * call on a name that the program makes, in turn. A run that hangs is ended by the test's time limit.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  commitImage,
  createSnapshot,
  diffToBitmap,
  editBitmap,
  fullBackup,
  incrementalBackup,
  isBackupError,
  restore,
} from '../../lib/index.ts'
import { actAtCall } from '../support/at-calls.ts'
import { someOf } from '../support/effort.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

const SECRET = Buffer.alloc(65536, 'secret')

/** What takes the place. */
const STANDINS: Record<string, (path: string, secret: string) => void> = {
  'a FIFO': (path) => execFileSync('mkfifo', [path]),
  'a link to the file of somebody else': (path, secret) => symlinkSync(secret, path),
  'a link to a device': (path) => symlinkSync('/dev/zero', path),
  'a directory': (path) => mkdirSync(path),
}

/** A command, and the file whose place is taken. */
interface Case {
  swapped: string
  run: (path: (name: string) => string) => Promise<unknown>
  /** Its name is given by the user, who may give one of a link. */
  isGiven?: boolean
}

const CASES: Record<string, Case> = {
  'full: the source': {
    swapped: 'disk.qcow2',
    run: (path) => fullBackup(path('disk.qcow2'), path('new.qcow2')),
    isGiven: true,
  },
  'full: a backing file': {
    swapped: 'base.raw',
    run: (path) => fullBackup(path('disk.qcow2'), path('new.qcow2')),
  },
  'full: a data file': {
    swapped: 'data',
    run: (path) => fullBackup(path('external.qcow2'), path('new.qcow2')),
  },
  'full: the target': {
    swapped: 'old.qcow2',
    run: (path) => fullBackup(path('disk.qcow2'), path('old.qcow2'), { force: true }),
    isGiven: true,
  },
  'full: the manifest': {
    swapped: 'old.qcow2.manifest.json',
    run: (path) =>
      fullBackup(path('disk.qcow2'), path('old.qcow2'), { force: true, manifest: true }),
    isGiven: true,
  },
  'full: a manifest that goes': {
    swapped: 'old.qcow2.manifest.json',
    run: (path) => fullBackup(path('disk.qcow2'), path('old.qcow2'), { force: true }),
    isGiven: true,
  },
  'incremental: the previous backup': {
    swapped: 'old.qcow2',
    run: (path) =>
      incrementalBackup(path('disk.qcow2'), path('new.qcow2'), {
        bitmap: 'b',
        backing: path('old.qcow2'),
      }),
    isGiven: true,
  },
  'restore: the backup': {
    swapped: 'old.qcow2',
    run: (path) => restore(path('old.qcow2'), path('new.raw')),
    isGiven: true,
  },
  'restore: the manifest': {
    swapped: 'old.qcow2.manifest.json',
    run: (path) => restore(path('old.qcow2'), path('new.raw')),
    isGiven: true,
  },
  'diff: the baseline': {
    swapped: 'old.qcow2',
    run: (path) => diffToBitmap(path('disk.qcow2'), path('old.qcow2'), 'd'),
    isGiven: true,
  },
  'commit: the base': {
    swapped: 'base.raw',
    run: (path) => commitImage(path('disk.qcow2')),
  },
  'snapshot: the backing file': {
    swapped: 'disk.qcow2',
    run: (path) => createSnapshot(path('disk.qcow2'), path('new.qcow2')),
    isGiven: true,
  },
  'bitmap merge: the image that is merged from': {
    swapped: 'disk.qcow2',
    run: (path) =>
      editBitmap(path('plain.qcow2'), 'm', [
        { kind: 'add' },
        { kind: 'merge', source: 'b', from: path('disk.qcow2') },
      ]),
    isGiven: true,
  },
}

/** The files of all cases. */
async function setUp(t: Test): Promise<string> {
  const images = t.testdir({ images: {} })
  const path = (name: string) => join(images, 'images', name)
  writeFileSync(join(images, 'secret'), SECRET)
  writeFileSync(path('base.raw'), Buffer.alloc(65536, 'base'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', path('base.raw'), '-F', 'raw', path('disk.qcow2'))
  qemuImg('rebase', '-q', '-u', '-b', 'base.raw', '-F', 'raw', path('disk.qcow2'))
  qemuImg('bitmap', '--add', path('disk.qcow2'), 'b')
  qemuIo(path('disk.qcow2'), 'write -q -P 7 0 4k')
  qemuImg('create', '-q', '-f', 'qcow2', path('plain.qcow2'), '64K')
  const external = `data_file=${path('data')},data_file_raw=on`
  qemuImg('create', '-q', '-f', 'qcow2', '-o', external, path('external.qcow2'), '64K')
  qemuImg('amend', '-f', 'qcow2', '-o', 'data_file=data', path('external.qcow2'))
  await fullBackup(path('disk.qcow2'), path('old.qcow2'), { manifest: true })
  return images
}

for (const [index, [name, { swapped, run, isGiven = false }]] of Object.entries(CASES).entries()) {
  t.test(
    `${name}: what takes its place at any time is neither waited for nor followed`,
    async (t) => {
      const model = await setUp(t)
      const root = join(model, '..', `${t.name.replace(/\W+/g, '-')}`)
      const path = (file: string) => join(root, 'images', file)
      t.teardown(() => rmSync(root, { recursive: true, force: true }))
      const fresh = () => {
        rmSync(root, { recursive: true, force: true })
        cpSync(model, root, { recursive: true })
      }
      fresh()
      const undisturbed = await actAtCall(
        Number.POSITIVE_INFINITY,
        path(swapped),
        () => {},
        () => run(path),
      )
      t.equal(undisturbed.outcome.status, 'fulfilled', 'it works')
      t.ok(undisturbed.count > 0, 'the name is looked up')
      for (const [what, standIn] of someOf(Object.entries(STANDINS), index)) {
        for (let at = 0; at < undisturbed.count; at++) {
          fresh()
          const swap = () => {
            rmSync(path(swapped))
            standIn(path(swapped), join(root, 'secret'))
          }
          const { outcome, opened } = await actAtCall(at, path(swapped), swap, () => run(path))
          const where = `${what}, before call ${at}`
          if (outcome.status === 'rejected' && !isBackupError(outcome.reason)) {
            t.fail(where, { found: outcome.reason })
          }
          // A link that is there from the beginning, under a name that the user gave, is the user's.
          const isSafe = readFileSync(join(root, 'secret')).equals(SECRET) || (isGiven && at === 0)
          if (!isSafe) t.fail(`written to: ${where}`)
          if (!isGiven && opened.some((one) => /secret$|^\/dev/.test(one))) {
            t.fail(`opened: ${where}`, { opened })
          }
        }
        t.pass(what)
      }
    },
  )
}
