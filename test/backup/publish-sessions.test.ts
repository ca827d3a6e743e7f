/** Copies of several disks are published together: all of them, or none. */
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup, verifyManifests } from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { run } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(900_000)

const MIB = 2 ** 20
/** The first replaces a backup with a manifest, the second one without, the third nothing. */
const NAMES = ['a', 'b', 'c']
const REPLACED = ['a', 'b']

const NAMING = 'fsync,link,linkat,rename,renameat,renameat2'
const REMOVING = 'unlink,unlinkat'
const SESSION = new URL('../../lib/backup/session.js', import.meta.url)

/** Copies three disks, publishes them together, and ends with the error's message. */
const PROGRAM = `
  const { openSession, publishSessions } = await import('${SESSION}')
  const sessions = []
  try {
    for (const name of ${JSON.stringify(NAMES)}) {
      const options = { force: true, manifest: true }
      const disk = { from: name + '.new', to: name, format: 'qcow2', replaces: 'image', options }
      sessions.push(await openSession(disk))
      await sessions.at(-1).copy()
    }
    const results = await publishSessions(sessions)
    console.log(JSON.stringify(results.flatMap(({ notes = [] }) => notes)))
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  } finally {
    for (const session of sessions) await session.discard()
  }`

async function setUp(test: Test): Promise<string> {
  const directory = test.testdir({ kept: {}, done: {} })
  for (const [i, name] of NAMES.entries()) {
    const disk = (kind: string, seed: number) =>
      makeRaw(join(directory, `${name}.${kind}`), MIB, [{ at: 0, bytes: noise(100_000, seed) }])
    disk('new', 10 + i)
    const old = disk('old', i)
    if (!REPLACED.includes(name)) continue
    await fullBackup(old, join(directory, 'kept', name), { manifest: name === 'a' })
  }
  return directory
}

/** Puts the old backups in place, and nothing else. */
function prepare(directory: string): void {
  for (const name of readdirSync(directory)) {
    if (/^(a|b|c)(\.manifest\.json)?$|partial$/.test(name)) rmSync(join(directory, name))
  }
  for (const name of readdirSync(join(directory, 'kept'))) {
    copyFileSync(join(directory, 'kept', name), join(directory, name))
  }
}

function publish(directory: string, ...strace: string[]) {
  return run('strace', [
    ...['-f', '-qq', '-o', '/dev/null', ...strace],
    // One thread makes all calls of Node's: they are counted for each thread by itself.
    ...['env', '-C', directory, 'UV_THREADPOOL_SIZE=1', 'QCOW2_BACKUP_ENGINE=threads'],
    ...[process.execPath, '--input-type=module', '-e', PROGRAM],
  ])
}

/** Which backup each name has, each with a manifest that is its own. */
async function standing(test: Test, directory: string, when: string): Promise<string[]> {
  const found: string[] = []
  for (const name of NAMES) {
    const path = join(directory, name)
    if (!existsSync(path)) {
      found.push('none')
      continue
    }
    const old = join(directory, 'kept', name)
    const isOld = existsSync(old) && readFileSync(old).equals(readFileSync(path))
    const requireManifest = !isOld || name === 'a'
    for await (const one of verifyManifests([path], { requireManifest })) {
      test.ok(one.same, `${when}: ${name} and its manifest: ${one.difference}`)
    }
    found.push(isOld ? 'old' : 'new')
  }
  return found
}

const BEFORE = ['old', 'old', 'none']
const AFTER = ['new', 'new', 'new']

t.test('without a fault all are published', async (t) => {
  const directory = await setUp(t)
  prepare(directory)
  const { status, stderr, stdout } = publish(directory, '-e', 'trace=none')
  t.equal(status, 0, stderr)
  t.equal(stdout, '[]\n')
  t.strictSame(await standing(t, directory, 'done'), AFTER)
})

const FAULTS = [
  { calls: NAMING, how: 'error=EIO' },
  { calls: `${NAMING},${REMOVING}`, how: 'signal=KILL' },
  ...effort(
    [],
    [
      { calls: NAMING, how: 'error=ENOSPC' },
      { calls: REMOVING, how: 'error=EIO' },
    ],
  ),
]

for (const { calls, how } of FAULTS) {
  t.test(`${how} at each call of ${calls}`, async (t) => {
    const directory = await setUp(t)
    const outcomes = new Set<string>()
    let completed = false
    // In a quick run every fifth one.
    for (let n = 1; !completed; n += effort(5, 1)) {
      prepare(directory)
      const inject = ['-e', `trace=${calls}`, '-e', `inject=${calls}:${how}:when=${n}`]
      const { status, stdout, stderr } = publish(directory, ...inject)
      const when = `call ${n}`
      const found = await standing(t, directory, when)
      if (status === 0) {
        t.strictSame(found, AFTER, `${when}: done`)
        // No thread makes so many calls; what cannot be cleaned up is told in notes.
        completed = stdout === '[]\n'
      } else if (how.startsWith('error')) {
        // A call of each thread fails: maybe also one that would have put back what was there.
        for (const [i, name] of NAMES.entries()) {
          const isStuck = stderr.includes(
            `${name} is the new file, complete, and could not be taken`,
          )
          t.equal(found[i], isStuck ? 'new' : BEFORE[i], `${when}: ${name}, as it says: ${stderr}`)
        }
      } else {
        // Killed: every backup that is not under its name any more is beside it, whole.
        for (const name of REPLACED) {
          const old = readFileSync(join(directory, 'kept', name))
          const beside = readdirSync(directory).filter((one) => one.startsWith(`.${name}.`))
          const places = [name, ...beside].map((one) => readFileSync(join(directory, one)))
          const isKept = places.some((content) => content.equals(old))
          if (!isKept) t.strictSame(found, AFTER, `${when}: ${name} is gone once all are new`)
        }
      }
      outcomes.add(status === 0 ? 'done' : found.join())
    }
    t.ok(outcomes.has('done'))
    if (calls === REMOVING) t.equal(outcomes.size, 1, 'what is left over fails nothing')
    else t.ok(outcomes.has(BEFORE.join()), 'and at some calls nothing was published')
  })
}
