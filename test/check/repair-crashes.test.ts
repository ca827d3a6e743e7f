/** A repair that ends between any two writes, and is run again: as one that was not disturbed. */
import { copyFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { diskOf } from '../../lib/image/steps.ts'
import { type Comparison, compareImages } from '../../lib/index.ts'
import { checkImage } from '../../lib/qemu-img/check/check-image.ts'
import { randomNumbers } from '../support/changes.ts'
import { damage } from '../support/damage.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { counting, Stopped, stopsAt } from '../support/stopping.ts'

t.setTimeout(1_800_000)

const K = 2 ** 10
/** In a quick run only such as can be repaired. */
const SEEDS = effort(
  [10, 11, 12],
  Array.from({ length: 60 }, (_, i) => i + 1),
)
/** What cannot be repaired at all is no case; there must be as many that are. */
const MIN_REPAIRED = effort(3, 10)

/** Makes an image with what a repair has to do with. */
function makeImage(image: string, seed: number): void {
  const clusterSize = [512, 4 * K, 64 * K][seed % 3]
  const options = `cluster_size=${clusterSize},refcount_bits=${[16, 64, 8][seed % 3]}`
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, '2M')
  qemuIo(image, 'write -P 1 0 300k', 'write -c -P 2 512k 64k', 'write -z 1M 64k')
  if (seed % 2 === 0) qemuImg('snapshot', '-c', 's', image)
  qemuImg('bitmap', '--add', image, 'b')
  qemuIo(image, 'write -P 3 100k 300k', 'write -P 4 1500k 100k')
}

/** Repairs an image, and stops before the n-th write or sync; false if there are fewer. */
async function stopped(image: string, n: number): Promise<boolean> {
  const count = stopsAt(n)
  try {
    await checkImage(image, {
      repair: 'all',
      disk: (file) => counting(diskOf(file.handle), count),
    })
  } catch (error) {
    if (error instanceof Stopped) return true
    throw error
  }
  return false
}

function findingOf({ finding }: Comparison) {
  return finding && [finding.kind, 'start' in finding && finding.start]
}

t.test('a repair that is stopped anywhere and run again ends as one in one go', async (t) => {
  let repaired = 0
  for (const seed of SEEDS) {
    const dir = t.testdir()
    const [image, whole, twin, part] = ['image', 'whole', 'twin', 'part'].map((name) =>
      join(dir, name),
    )
    makeImage(image, seed)
    const done = damage(image, randomNumbers(seed)).join('; ')
    copyFileSync(image, whole)
    const end = await checkImage(whole, { repair: 'all' }).catch(() => undefined)
    if (!end || end.corruptions + end.checkErrors > 0 || end.corruptionsFixed === 0) continue
    repaired++
    t.equal(statSync(whole).size % [512, 4 * K, 64 * K][seed % 3], 0, 'it ends with a cluster')
    // The same everywhere, but for a damaged compressed cluster, which nothing repairs.
    copyFileSync(whole, twin)
    const content = findingOf(await compareImages([twin, whole]))
    let stops = 0
    for (let n = 1; ; n++) {
      copyFileSync(image, part)
      if (!(await stopped(part, n))) break
      stops++
      await checkImage(part, { repair: 'all' })
      const { corruptions, checkErrors, leaks } = await checkImage(part)
      const what = `${seed}: ${done}: stopped at ${n}`
      t.same(
        { corruptions, checkErrors, leaks },
        { corruptions: 0, checkErrors: 0, leaks: 0 },
        what,
      )
      if (n % 8 === 1) t.equal(qemuImgCheck(part).status, 0, what)
      t.same(findingOf(await compareImages([part, whole])), content, `${what}: content`)
    }
    t.ok(stops >= 2, `${stops} stops`)
  }
  t.ok(repaired >= MIN_REPAIRED, `${repaired} of ${SEEDS.length} images could be repaired`)
})
