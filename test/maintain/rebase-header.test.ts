/** The header of an image that comes to name another backing file: all of it stays, at any moment. */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { EXT_BACKING_FORMAT } from '../../lib/format/qcow2/constants.ts'
import { EXT_ROOM } from '../../lib/format/qcow2/encode.ts'
import { readHeader } from '../../lib/format/qcow2/qcow2-image.ts'
import { openFile } from '../../lib/image/file.ts'
import { editBitmap } from '../../lib/index.ts'
import { type NewBacking, rebaseImage } from '../../lib/maintain/rebase/rebase.ts'
import { randomNumbers } from '../support/changes.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo } from '../support/qemu.ts'
import { apply, recording, sectorsOf } from '../support/sectors.ts'

t.setTimeout(600_000)

/** What names the backing file, and all else of the header. */
async function headerOf(image: string) {
  const file = await openFile(image)
  try {
    const header = await readHeader(file)
    const { backingFile, backingFileOffset: _, backingFileSize: __, extensions, ...fields } = header
    const { backingFormat, all, ...others } = extensions
    const kept = all.filter(({ type }) => type !== EXT_BACKING_FORMAT && type !== EXT_ROOM)
    return { backing: JSON.stringify([backingFile, backingFormat]), rest: { fields, others, kept } }
  } finally {
    await file.handle.close()
  }
}

interface SetUp {
  options: string
  /** A backing file that it has before, and whether its format is recorded. */
  name?: string
  unrecorded?: boolean
  bitmaps?: 'qemu' | 'ours'
  dataFile?: boolean
}

async function make(image: string, { options, name, ...setUp }: SetUp): Promise<void> {
  const data = setUp.dataFile ? `,data_file=${image}.data` : ''
  const over = name === undefined ? [] : ['-u', '-b', name, '-F', 'qcow2']
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options + data, ...over, image, '4M')
  if (setUp.bitmaps === 'qemu') {
    if (over.length > 0) qemuImg('rebase', '-u', image)
    qemuImg('bitmap', '--add', image, 'b')
    if (over.length > 0) qemuImg('rebase', ...over, image)
  }
  // An image of an old program: the extension means nothing.
  if (setUp.unrecorded) poke(image, peek64(image, 96) === 0n ? 72 : 112, 0x12345678)
  if (setUp.bitmaps === 'ours') await editBitmap(image, 'b', [{ kind: 'add' }])
}

/** Rebases an image in a copy; then with some sectors of each step, of which all before are written. */
async function campaign(t: Test, image: string, backing: NewBacking | undefined) {
  const [done, torn] = [`${image}.done`, `${image}.torn`]
  copyFileSync(image, done)
  const before = await headerOf(image)
  let steps: ReturnType<typeof recording>['steps'] = []
  await rebaseImage(done, backing, {
    unsafe: true,
    disk(disk) {
      const recorded = recording(disk)
      steps = recorded.steps
      return { ...disk, ...recorded.disk }
    },
  })
  const after = await headerOf(done)
  const wanted = backing?.file ? [backing.file, backing.format] : [undefined, undefined]
  t.equal(after.backing, JSON.stringify(wanted))
  t.strictSame(after.rest, before.rest, 'all else stays')
  const info = qemuImgInfo(done)
  t.equal(info['backing-filename'], backing?.file || undefined)
  t.equal(info['backing-filename-format'], backing?.file ? backing.format : undefined)
  const random = randomNumbers(1)
  for (const [n, step] of steps.entries()) {
    const sectors = sectorsOf(step)
    for (let subset = 0; subset < 4 && sectors.length > 0; subset++) {
      copyFileSync(image, torn)
      for (const earlier of steps.slice(0, n)) apply(torn, sectorsOf(earlier))
      const some = sectors.filter((_, i) => (subset < 2 ? (i === 0) === (subset === 0) : random(2)))
      apply(torn, some)
      const { backing: now, rest } = await headerOf(torn)
      t.ok([before.backing, after.backing].includes(now), `step ${n}: the old name or the new one`)
      t.strictSame(rest, before.rest, `step ${n}`)
    }
  }
  const last = steps.filter((step) => step.length > 0).at(-1)
  if (last) t.equal(sectorsOf(last).length, 1, 'the last step is one sector')
  copyFileSync(done, image)
}

const LONG = 'l'.repeat(300)

const SET_UPS: SetUp[] = [
  { options: 'cluster_size=512', name: 'base' },
  { options: 'cluster_size=512,compat=0.10' },
  { options: 'cluster_size=2k', name: LONG },
  { options: 'cluster_size=4k,compat=0.10', name: 'base' },
  { options: 'cluster_size=64k' },
  { options: 'cluster_size=64k', name: 'base' },
  { options: 'cluster_size=64k,compat=0.10', name: LONG, unrecorded: true },
  { options: 'cluster_size=64k', name: LONG, unrecorded: true },
  { options: 'cluster_size=64k', name: LONG, bitmaps: 'ours' },
  { options: 'cluster_size=64k', bitmaps: 'qemu' },
  { options: 'cluster_size=64k', dataFile: true },
]

for (const [n, setUp] of SET_UPS.entries()) {
  const { options, name = '', unrecorded, bitmaps, dataFile } = setUp
  const what = [
    options,
    `${name.length} bytes of name`,
    ...(unrecorded ? ['no format'] : []),
    ...(bitmaps ? [`bitmaps by ${bitmaps}`] : []),
    ...(dataFile ? ['a data file'] : []),
  ]
  t.test(`every torn write leaves the old name or the new one: ${what.join(', ')}`, async (t) => {
    const image = join(t.testdir(), 'image.qcow2')
    await make(image, setUp)
    const small = options.includes('=512')
    // One after the other, so that each finds what the one before has left.
    for (const backing of [
      { file: 'other', format: 'raw' },
      { file: small ? 'longer name' : 'm'.repeat(1023), format: 'qcow2' },
      undefined,
      { file: small ? 'n' : 'n'.repeat(600), format: 'raw' },
      { file: 'o', format: 'qcow2' },
      { file: '', format: undefined },
    ]) {
      await t.test(`to ${n} ${backing?.file?.slice(0, 20)}`, (t) => campaign(t, image, backing))
    }
    t.equal(qemuImgCheck(image).status, 0)
  })
}

t.test('a name for which the header has no room is refused', async (t) => {
  const image = join(t.testdir(), 'image.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', image, '1M')
  const backing = { file: 'x'.repeat(500), format: 'raw' }
  await t.rejects(rebaseImage(image, backing, { unsafe: true }), {
    code: 'UNSUPPORTED',
    why: 'there is no room in its header for the name',
  })
})
