/**
 * Names that others change while a target is opened and published: before each call that is made,
 * something else is put under the name. What others put there is theirs, and stays.
 */
import { spawnSync } from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import promises from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { locate } from '../../../lib/copy/target/location.ts'
import { openTarget, publishAll, type Target } from '../../../lib/copy/target/open-target.ts'
import { isBackupError } from '../../../lib/errors.ts'
import { native } from '../../../lib/native.ts'
import { skipUnlessRoot } from '../../support/root.ts'

t.setTimeout(300_000)

const OLD = 'what stood there'
const VICTIM = 'of somebody else'

/** Calls with which names are looked at, given and taken. */
const CALLS = ['open', 'lstat', 'link', 'rename', 'unlink', 'access'] as const
const NATIVE_CALLS = ['linkFile', 'exchangeNames'] as const

/** Does something before the n-th of the calls, as long as `use` takes; how many there were. */
async function beforeCall(n: number, act: () => void, use: () => Promise<void>): Promise<number> {
  let made = 0
  const count = () => {
    if (++made === n) act()
  }
  const watched = (object: object, names: readonly string[]) => {
    const calls = object as Record<string, (...args: unknown[]) => unknown>
    const kept = names.map((name) => calls[name])
    for (const [i, name] of names.entries()) {
      calls[name] = (...args) => {
        count()
        return kept[i].apply(object, args)
      }
    }
    return () => {
      for (const [i, name] of names.entries()) calls[name] = kept[i]
    }
  }
  const restore = [watched(promises, CALLS), watched(native(), NATIVE_CALLS)]
  syncBuiltinESMExports()
  try {
    await use()
  } finally {
    for (const one of restore) one()
    syncBuiltinESMExports()
  }
  return made
}

/** What is put under the name. */
const INTRUDERS: Record<string, (path: string, directory: string) => void> = {
  'a named pipe': (path) => void spawnSync('mkfifo', [path]),
  'a link': (path, directory) => symlinkSync(join(directory, 'victim'), path),
  'a link to nothing': (path, directory) => symlinkSync(join(directory, 'nothing'), path),
  'another file': (path) => writeFileSync(path, VICTIM),
  'a directory': (path) => mkdirSync(path),
}
if (!skipUnlessRoot('make devices')) {
  // Of a driver that does not exist: it must not even be opened.
  INTRUDERS['a device'] = (path) => void spawnSync('mknod', [path, 'b', '240', '7'])
}

/** The object with an inode number, wherever it is in a directory. */
function nameOf(directory: string, inode: number): string | undefined {
  return readdirSync(directory).find((name) => lstatSync(join(directory, name)).ino === inode)
}

/** How a target is made whose name is swapped before the n-th call. */
async function attempt(test: Test, intrude: (typeof INTRUDERS)[string], n: number, old: boolean) {
  const directory = test.testdir({ victim: VICTIM, aside: {}, ...(old && { target: OLD }) })
  const path = join(directory, 'target')
  let inode = 0
  const swap = () => {
    if (nameOf(directory, lstatIno(path)) === 'target') {
      renameSync(path, join(directory, 'aside', 'target'))
    }
    intrude(path, directory)
    inode = lstatIno(path)
  }
  // A link that has the name when it is looked up is followed: the race begins after that.
  const location = await locate(path)
  let failure: unknown
  let target: Target | undefined
  const made = await beforeCall(n, swap, async () => {
    try {
      target = await openTarget(location, { force: old, sources: [] })
      await target.handle!.write('new', 0)
      await publishAll([[target]])
    } catch (error) {
      failure = error
    } finally {
      await target?.discard()
    }
  })
  return { directory, path, inode, failure, made }
}

function lstatIno(path: string): number {
  return lstatSync(path, { throwIfNoEntry: false })?.ino ?? 0
}

for (const old of [false, true]) {
  for (const [what, intrude] of Object.entries(INTRUDERS)) {
    t.test(`${what} in place of ${old ? 'what is replaced' : 'a free name'}`, async (t) => {
      const outcomes = new Set<string>()
      // The first call opens what has the name then, which is judged.
      for (let n = 2; ; n++) {
        const { directory, path, inode, failure, made } = await attempt(t, intrude, n, old)
        if (made < n) break
        const when = `before call ${n}`
        t.equal(readFileSync(join(directory, 'victim'), 'utf8'), VICTIM, `${when}: victim`)
        t.equal(lstatIno(path), inode, `${when}: it has the name: ${failure}`)
        if (what === 'another file') t.equal(readFileSync(path, 'utf8'), VICTIM, when)
        const [aside] = readdirSync(join(directory, 'aside'))
        const moved = aside && readFileSync(join(directory, 'aside', aside), 'utf8')
        if (failure) {
          t.ok(isBackupError(failure), `${when}: ${failure}`)
          t.strictSame(readdirSync(directory).sort(), ['aside', 'target', 'victim'], when)
          outcomes.add('refused')
        } else {
          // It was published, and taken away after that.
          t.equal(moved, 'new', when)
          outcomes.add('published')
        }
      }
      t.ok(outcomes.has('refused'))
    })
  }
}
