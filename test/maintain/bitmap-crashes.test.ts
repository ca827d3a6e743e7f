/** An edit that ends between any two writes: QEMU opens what is left, and believes no wrong bit. */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { diskOf } from '../../lib/image/steps.ts'
import { type BitmapOperation, compareImages, listBitmaps } from '../../lib/index.ts'
import { editBitmap } from '../../lib/maintain/edit-bitmap.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { counting, Stopped, stopsAt } from '../support/stopping.ts'

t.setTimeout(1_800_000)

/** Of how many writes and syncs one is a stop. */
const EVERY = effort(2, 1)

/** Edits a copy of an image, and stops before the n-th write or sync; false if there are fewer. */
async function stopped(
  image: string,
  name: string,
  operations: BitmapOperation[],
  n: number,
): Promise<boolean> {
  const count = stopsAt(n)
  try {
    await editBitmap(image, name, operations, {
      disk: (edited) => counting(diskOf(edited.file.handle), count),
    })
  } catch (error) {
    if (error instanceof Stopped) return true
    throw error
  }
  return false
}

/** What is known of the bitmaps of an image; `none` where they are not current. */
async function stateOf(image: string): Promise<string> {
  const list = await listBitmaps(image)
  return list.length === 0
    ? 'none'
    : list.map((one) => `${one.name} ${one.granularity} ${one.recording} ${one.dirtyBytes}`).join()
}

async function campaign(
  t: Test,
  options: string,
  name: string,
  operations: BitmapOperation[],
  prepare: (image: string) => void,
) {
  const dir = t.testdir()
  const [image, path, done] = ['image', 'x', 'done'].map((file) => join(dir, file))
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, '4M')
  prepare(image)
  copyFileSync(image, done)
  await editBitmap(done, name, operations)
  // Never one that is out of date.
  const [before, after] = [await stateOf(image), await stateOf(done)]
  let stops = 0
  for (let n = 1; ; n += EVERY) {
    copyFileSync(image, path)
    if (!(await stopped(path, name, operations, n))) break
    stops++
    const state = await stateOf(path)
    t.ok([before, after].includes(state), `stopped at ${n}: ${state}`)
    const { status, report } = qemuImgCheck(path)
    t.ok(status === 0 || status === 3, `stopped at ${n}: check ends with ${status}`)
    t.equal(report.corruptions ?? 0, 0)
    t.ok((await compareImages([path, image])).identical)
    if (THOROUGH) t.equal(qemuImg('compare', path, image), 'Images are identical.\n')
    // QEMU writes to it, which makes it drop what it does not trust.
    qemuIo(path, 'write -P 9 1M 64k')
    if (THOROUGH) t.ok([0, 3].includes(qemuImgCheck(path).status!))
    await editBitmap(path, 'new', [{ kind: 'add' }])
    t.ok([0, 3].includes(qemuImgCheck(path).status!), 'edited again')
  }
  t.ok(stops * EVERY >= 6, `${stops} stops`)
}

const withBitmaps = (image: string) => {
  qemuIo(image, 'write -P 1 0 1M')
  for (const name of ['b', 'c']) qemuImg('bitmap', '--add', image, name)
  qemuIo(image, 'write -P 2 512k 64k')
}

for (const options of ['cluster_size=64k', 'cluster_size=512,refcount_bits=64']) {
  t.test(`${options}: the first bitmap`, (t) => {
    return campaign(t, options, 'b', [{ kind: 'add' }], () => {})
  })
  t.test(`${options}: a merge`, (t) => {
    return campaign(
      t,
      options,
      'b',
      [{ kind: 'clear' }, { kind: 'merge', source: 'c' }],
      withBitmaps,
    )
  })
  t.test(`${options}: the removal of the last`, (t) => {
    return campaign(t, options, 'b', [{ kind: 'remove' }], (image) => {
      qemuImg('bitmap', '--add', image, 'b')
    })
  })
  t.test(`${options}: the removal of one of two`, (t) => {
    return campaign(t, options, 'b', [{ kind: 'remove' }], withBitmaps)
  })
}
