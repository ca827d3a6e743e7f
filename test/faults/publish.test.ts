/** An image and its manifest are never a wrong pair, at whichever system call a run fails or dies. */
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup, verifyManifests } from '../../lib/index.ts'
import { CLI } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { effort, someOf } from '../support/effort.ts'
import { run } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

/** What gives, takes and makes durable a name. */
const NAMING = 'fsync,link,linkat,rename,renameat,renameat2'
const REMOVING = 'unlink,unlinkat'

/** What happens at a call. */
const FAULTS = [
  { calls: `${NAMING},${REMOVING}`, how: 'signal=KILL' },
  { calls: NAMING, how: 'error=EIO' },
  { calls: REMOVING, how: 'error=EIO' },
  ...effort([], [{ calls: NAMING, how: 'error=ENOSPC' }]),
]

interface Scenario {
  name: string
  /** The manifest of the image that is replaced; undefined: there is no image. */
  old?: { manifest: boolean }
  /** The new one is made with a manifest. */
  manifest: boolean
}

const SCENARIOS: Scenario[] = [
  { name: 'a manifest takes the place of another', old: { manifest: true }, manifest: true },
  { name: 'an image without a manifest is replaced', old: { manifest: false }, manifest: true },
  { name: 'the new one has no manifest', old: { manifest: true }, manifest: false },
  { name: 'nothing is replaced', manifest: true },
]

/** Puts an old backup in place, and nothing else. */
function prepare(directory: string, { old }: Scenario): void {
  for (const name of readdirSync(directory)) {
    if (name.includes('image')) rmSync(join(directory, name))
  }
  if (!old) return
  copyFileSync(join(directory, 'kept/image'), join(directory, 'image'))
  if (!old.manifest) return
  copyFileSync(join(directory, 'kept/image.manifest.json'), join(directory, 'image.manifest.json'))
}

/** Runs a backup in which the n-th of the calls that a thread makes fails, or kills. */
function inject(
  directory: string,
  { old, manifest }: Scenario,
  { calls, how }: (typeof FAULTS)[number],
  n: number,
) {
  return run('strace', [
    ...['-f', '-qq', '-o', '/dev/null', '-e', `trace=${calls}`],
    ...['-e', `inject=${calls}:${how}:when=${n}`],
    // One thread makes all calls of Node's: they are counted for each thread by itself.
    ...['env', '-C', directory, 'UV_THREADPOOL_SIZE=1', 'QCOW2_BACKUP_ENGINE=threads'],
    ...[process.execPath, CLI, 'full', 'new.raw', 'image', '--no-progress'],
    ...(old ? ['--force'] : []),
    ...(manifest ? ['--manifest'] : []),
  ])
}

/** Which image stands there, having made sure that its manifest is not of another one. */
async function standing(test: Test, directory: string, scenario: Scenario, when: string) {
  const path = join(directory, 'image')
  if (!existsSync(path)) return 'none'
  const old = scenario.old && readFileSync(join(directory, 'kept/image'))
  const which = old?.equals(readFileSync(path)) ? 'old' : 'new'
  const wanted = which === 'old' ? scenario.old!.manifest : scenario.manifest
  for await (const one of verifyManifests([path], { requireManifest: wanted })) {
    test.ok(one.same, `${when}: the ${which} image and its manifest: ${one.difference}`)
  }
  return which
}

for (const [index, scenario] of SCENARIOS.entries()) {
  t.test(scenario.name, async (t) => {
    const directory = t.testdir({ kept: {} })
    const parts = (seed: number) => [{ at: 0, bytes: noise(300_000, seed) }]
    const disk = makeRaw(join(directory, 'old.raw'), 2 ** 20, parts(1))
    makeRaw(join(directory, 'new.raw'), 2 ** 20, parts(2))
    await fullBackup(disk, join(directory, 'kept/image'), { manifest: true })
    const before = scenario.old ? 'old' : 'none'

    for (const fault of someOf(FAULTS, index)) {
      const { calls, how } = fault
      let completed = false
      for (let n = 1; !completed; n += effort(2, 1)) {
        prepare(directory, scenario)
        const { status, stdout, stderr } = inject(directory, scenario, fault, n)
        const when = `${how} at call ${n} of ${calls}`
        const which = await standing(t, directory, scenario, when)
        if (status === 0) t.equal(which, 'new', `${when}: done`)
        // A call of each thread fails: maybe also the one that would have put back what was there.
        const isStuck = stderr.includes('image is the new file, complete, and could not be taken')
        if (isStuck) t.equal(which, 'new', `${when}: as it says`)
        else if (status !== 0 && how.startsWith('error')) {
          t.equal(which, before, `${when}: as it was: ${stderr}`)
          const left = readdirSync(directory).filter((name) => name.endsWith('.partial'))
          // It says so where the one for both stays.
          const isKept = stderr.includes('could not be taken back')
          if (calls === NAMING && !isKept) t.strictSame(left, [], `${when}: nothing left`)
        }
        // No thread makes so many calls; what cannot be cleaned up is a note of the result.
        completed = status === 0 && !stdout.includes('note: ')
      }
    }
  })
}
