/** A power failure in the middle of a write: the header is the old one or the new one, never a mix. */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readHeader } from '../../lib/format/qcow2/qcow2-image.ts'
import { openFile } from '../../lib/image/file.ts'
import { diskOf } from '../../lib/image/steps.ts'
import { type BitmapOperation, listBitmaps } from '../../lib/index.ts'
import { commitImage } from '../../lib/maintain/commit/commit.ts'
import { editBitmap } from '../../lib/maintain/edit-bitmap.ts'
import { randomNumbers } from '../support/changes.ts'
import { qemuImg, qemuImgCheck } from '../support/qemu.ts'
import { apply, recording, sectorsOf } from '../support/sectors.ts'

t.setTimeout(1_800_000)

/** Random subsets of a step's sectors, besides every single one and all but one. */
const SUBSETS = 6

interface Edit {
  what: string
  /** Done before, by QEMU or by us. */
  before?: (image: string) => Promise<unknown> | unknown
  name: string
  operations: BitmapOperation[]
}

const EDITS: Edit[] = [
  { what: 'the first bitmap', name: 'b', operations: [{ kind: 'add' }] },
  {
    what: 'a second bitmap',
    before: (image) => qemuImg('bitmap', '--add', image, 'a'),
    name: 'b',
    operations: [{ kind: 'add' }],
  },
  {
    what: 'one after ours',
    before: (image) => editBitmap(image, 'a', [{ kind: 'add' }]),
    name: 'b',
    operations: [{ kind: 'add' }],
  },
  {
    what: "the removal of QEMU's last",
    before: (image) => qemuImg('bitmap', '--add', image, 'b'),
    name: 'b',
    operations: [{ kind: 'remove' }],
  },
  {
    what: 'the removal of our last',
    before: (image) => editBitmap(image, 'b', [{ kind: 'add' }]),
    name: 'b',
    operations: [{ kind: 'remove' }],
  },
  {
    what: 'one after all were removed',
    async before(image) {
      await editBitmap(image, 'a', [{ kind: 'add' }])
      await editBitmap(image, 'a', [{ kind: 'remove' }])
    },
    name: 'b',
    operations: [{ kind: 'add' }],
  },
]

/** What must be as before or as after. */
async function stateOf(image: string): Promise<string> {
  const names = (await listBitmaps(image)).map(({ name, dirtyBytes }) => `${name} ${dirtyBytes}`)
  return names.join()
}

/** What must always be the same. */
async function identityOf(image: string): Promise<string> {
  const file = await openFile(image)
  try {
    const { backingFile, extensions, virtualSize, clusterSize } = await readHeader(file)
    const { backingFormat, featureNames } = extensions
    return JSON.stringify({ backingFile, backingFormat, featureNames, virtualSize, clusterSize })
  } finally {
    await file.handle.close()
  }
}

async function campaign(t: Test, at: (name: string) => string, edit: Edit, random: Random) {
  const [image, done, torn] = ['image', 'done', 'torn'].map(at)
  await edit.before?.(image)
  copyFileSync(image, done)
  const identity = await identityOf(image)
  let steps: ReturnType<typeof recording>['steps'] = []
  await editBitmap(done, edit.name, edit.operations, {
    disk(edited) {
      const recorded = recording(diskOf(edited.file.handle))
      steps = recorded.steps
      return recorded.disk
    },
  })
  const states = [await stateOf(image), await stateOf(done)]
  t.not(states[0], states[1])
  for (const [n, step] of steps.entries()) {
    const sectors = sectorsOf(step)
    for (let subset = 0; subset < SUBSETS && sectors.length > 0; subset++) {
      copyFileSync(image, torn)
      for (const before of steps.slice(0, n)) apply(torn, sectorsOf(before))
      const some = sectors.filter((_, i) => {
        if (subset < 2) return subset === 0 ? i === 0 : i > 0
        return random(2) === 0
      })
      apply(torn, some)
      const what = `step ${n}, ${some.length} of ${sectors.length} sectors`
      t.ok(states.includes(await stateOf(torn)), `${what}: the old bitmaps or the new ones`)
      if (sectors.some(({ offset }) => offset < 65536))
        t.equal(await identityOf(torn), identity, what)
    }
    const [first] = step
    const onlyHeader = step.length === 1 && first.offset < 512
    if (onlyHeader) t.equal(sectors.length, 1, `step ${n} writes the header's one sector`)
  }
  const { status } = qemuImgCheck(done)
  t.equal(status, 0)
  t.equal(await identityOf(done), identity)
}

type Random = ReturnType<typeof randomNumbers>

const KINDS = [
  { clusters: '512', backing: 'base' },
  { clusters: '1k', backing: 'base' },
  { clusters: '4k', backing: 'b'.repeat(200) },
  { clusters: '64k', backing: '' },
  { clusters: '64k', backing: 'base' },
  { clusters: '64k', backing: 'b'.repeat(200) },
]

for (const { clusters, backing } of KINDS) {
  const name = backing === '' ? 'no backing file' : `a backing name of ${backing.length} bytes`
  t.test(`clusters of ${clusters}, ${name}`, async (t) => {
    for (const [n, edit] of EDITS.entries()) {
      await t.test(edit.what, async (t) => {
        const dir = t.testdir()
        const at = (file: string) => join(dir, file)
        const options = ['-o', `cluster_size=${clusters}`]
        if (backing !== '') {
          qemuImg('create', '-q', '-f', 'qcow2', at(backing), '4M')
          options.push('-b', backing, '-F', 'qcow2')
        }
        qemuImg('create', '-q', '-f', 'qcow2', ...options, at('image'), '4M')
        await campaign(t, at, edit, randomNumbers(n + 1))
      })
    }
  })
}

t.test(
  'a commit that makes the base grow, bitmaps and all, changes the header by one sector',
  async (t) => {
    for (const bitmap of ["QEMU's", 'ours']) {
      const dir = t.testdir()
      const at = (file: string) => join(dir, file)
      qemuImg('create', '-q', '-f', 'qcow2', at('below'), '4M')
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'below', '-F', 'qcow2', at('base'))
      if (bitmap === 'ours') await editBitmap(at('base'), 'b', [{ kind: 'add' }])
      else qemuImg('bitmap', '--add', at('base'), 'b')
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'), '8M')
      qemuImg('bitmap', '--add', at('top'), 'b')
      const identity = await identityOf(at('base'))
      let changes = 0
      await commitImage(at('top'), {
        disk: (disk) => ({
          ...disk,
          async write(write) {
            const end = write.offset + write.bytes.length
            if (write.offset < 512) t.ok(end <= 512, `${bitmap}: ${write.offset} to ${end}`)
            if (write.offset < 512) changes++
            await disk.write(write)
          },
        }),
      })
      t.ok(changes > 0, `${changes} writes to the header`)
      const grown = identity.replace(`${4 * 2 ** 20}`, `${8 * 2 ** 20}`)
      t.equal(await identityOf(at('base')), grown)
      t.match(qemuImgCheck(at('base')), { status: 0 })
    }
  },
)
