/** A commit that ends between any two writes: the base is sound, the top shows the same, and a second
 * run brings about what an undisturbed one does. */
import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  checkImage,
  compareImages,
  createSnapshot,
  listBitmaps,
  readBitmap,
} from '../../lib/index.ts'
import type { ChangeDisk } from '../../lib/maintain/changes/batch.ts'
import { commitImage } from '../../lib/maintain/commit/commit.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { counted, Stopped, stopsAt, stopsOf } from '../support/stopping.ts'

t.setTimeout(1_800_000)

/** What the bitmaps of an image say, by their names. */
async function stateOf(image: string): Promise<Record<string, string | undefined>> {
  const state: Record<string, string> = {}
  for (const { name, granularity, recording } of await listBitmaps(image)) {
    const dirty: string[] = []
    await readBitmap(image, name, (runs) => {
      for (const run of runs) if (run.dirty) dirty.push(`${run.start}+${run.length}`)
    })
    state[name] = `${granularity} ${recording} ${dirty.join()}`
  }
  return state
}

interface SetUp {
  options: string
  below?: string
  size: string
  topSize: string
  snapshot?: boolean
}

/** Base, two overlays; bitmaps that are merged, created, kept as they are, and not carried on. */
async function prepare(dir: string, setUp: SetUp): Promise<void> {
  const at = (file: string) => join(dir, file)
  const { options, below, size, topSize, snapshot } = setUp
  const create = ['create', '-q', '-f', 'qcow2', '-o', options]
  if (below) {
    qemuImg('create', '-q', '-f', 'qcow2', at('below'), below)
    qemuIo(at('below'), `write -P 9 0 ${below}`)
    create.push('-b', 'below', '-F', 'qcow2')
  }
  qemuImg(...create, at('base'), size)
  qemuIo(at('base'), 'write -c -P 1 0 64k', 'write -P 2 100k 1M', 'write -P 3 2M 500k')
  if (snapshot) qemuImg('snapshot', '-c', 's', at('base'))
  for (const name of ['kept', 'all', 'gone']) qemuImg('bitmap', '--add', at('base'), name)
  qemuImg('bitmap', '--disable', at('base'), 'kept')
  qemuIo(at('base'), 'write -P 4 300k 70k')
  await createSnapshot(at('base'), at('mid'))
  qemuImg('bitmap', '--remove', at('mid'), 'gone')
  qemuIo(at('mid'), 'write -P 5 200k 80k', 'write -z 1M 300k', 'write -P 5 3M 64k')
  await createSnapshot(at('mid'), at('top'))
  qemuImg('resize', '-q', '--shrink', at('top'), topSize)
  qemuIo(at('top'), 'write -P 6 128k 64k', 'write -z 2M 512k', 'discard 3M 64k')
  qemuImg('bitmap', '--add', '-g', '4k', at('top'), 'later')
  qemuIo(at('top'), 'write -P 7 700k 3k')
}

/** Requires that a check finds nothing but leaks. */
async function requireSound(t: Test, image: string, what: string, byQemu: boolean) {
  const { corruptions, checkErrors } = await checkImage(image)
  t.same({ corruptions, checkErrors }, { corruptions: 0, checkErrors: 0 }, what)
  if (!byQemu) return
  const { status, stderr } = qemuImgCheck(image)
  t.ok(status === 0 || status === 3, `${what}: qemu-img check ends with ${status} ${stderr}`)
}

async function areSame(a: string, b: string, byQemu: boolean): Promise<boolean> {
  const { identical } = await compareImages([a, b])
  return identical && (!byQemu || qemuImg('compare', a, b) === 'Images are identical.\n')
}

/** @param turn see stopsOf */
async function campaign(t: Test, setUp: SetUp, turn: number) {
  const dir = t.testdir({ whole: {}, part: {} })
  const at = (...names: string[]) => join(dir, ...names)
  await prepare(dir, setUp)
  const files = readdirSync(dir).filter((name) => /base|mid|top|below/.test(name))
  const copyTo = (to: string) => {
    for (const file of files) copyFileSync(at(file), at(to, file))
  }
  copyTo('whole')
  const before = await stateOf(at('base'))
  const steps = [0]
  await commitImage(at('whole', 'top'), {
    base: at('whole', 'base'),
    disk: (disk) =>
      counted(disk, (isSync) => {
        steps[steps.length - 1]++
        if (isSync) steps.push(0)
      }),
  })
  t.equal(steps.pop(), 0, 'it ends with a sync')
  // Before the data bitmaps record it, the data, its tables, what that frees; then the other bitmaps.
  t.ok(steps.length >= 10, `${steps.length} steps`)
  const after = await stateOf(at('whole', 'base'))
  t.not(after.all, before.all)
  t.ok(after.later)
  t.not(after.gone, before.gone, 'it records what is committed')

  for (const [i, n] of stopsOf(steps, turn).entries()) {
    copyTo('part')
    const options = { base: at('part', 'base') }
    const stopping = { ...options, disk: (disk: ChangeDisk) => counted(disk, stopsAt(n)) }
    const ended = await commitImage(at('part', 'top'), stopping).catch((error) => error)
    if (!(ended instanceof Stopped)) throw ended
    // QEMU takes its time: it judges some of what our own reader judges each time.
    const byQemu = i % effort(12, 2) === 0
    await requireSound(t, at('part', 'base'), `stopped at ${n}`, byQemu)
    t.ok(await areSame(at('part', 'top'), at('top'), byQemu), `stopped at ${n}: the top`)
    for (const file of files) {
      if (file !== 'base') t.ok(readFileSync(at('part', file)).equals(readFileSync(at(file))))
    }
    const state = await stateOf(at('part', 'base'))
    // Of a disk that grows they grow in the end only.
    const grown = state.all === after.all
    t.equal(state.kept, grown ? after.kept : before.kept, `at ${n}: a disabled one`)
    t.ok(state.later === undefined || state.later === after.later, `at ${n}: a new one`)
    for (const name of ['all', 'gone'] as const) {
      t.ok(state[name], `at ${n}: ${name} is there, and not out of date`)
    }

    await commitImage(at('part', 'top'), options)
    t.same(await stateOf(at('part', 'base')), after, `stopped at ${n}, done again: bitmaps`)
    const again = `stopped at ${n}, done again`
    t.ok(await areSame(at('part', 'base'), at('whole', 'base'), byQemu), again)
    await requireSound(t, at('part', 'base'), again, byQemu)
  }
}

t.test('a commit into a base by itself survives every stop', (t) => {
  return campaign(t, { options: 'cluster_size=64k', size: '4M', topSize: '4M' }, 0)
})

t.test('small clusters, over another image, that grows, with a snapshot', (t) => {
  const sizes = { below: '7M', size: '4M', topSize: '6M' }
  return campaign(t, { options: 'cluster_size=4k', ...sizes, snapshot: true }, 1)
})

t.test('clusters of 512 bytes, whose bitmaps get more clusters as it grows', (t) => {
  const options = 'cluster_size=512,refcount_bits=8'
  return campaign(t, { options, size: '4M', topSize: '18M' }, 2)
})
