import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { environmentOf, newerQemus, newerRuns, QUICK, THOROUGH } from '../../scripts/newer-qemus.ts'

const BITMAP = 'dist/test/qemu-img/bitmap.test.js'
const COMMIT = 'dist/test/maintain/commit.test.js'
const TEXT = 'dist/test/text.test.js'

t.test('complete folders are found, and one that is not is refused', async (t) => {
  const folder = join(t.testdir(), 'qemu')
  t.strictSame(newerQemus(folder), [])
  for (const name of ['trixie', 'forky', 'forky.new.7'])
    mkdirSync(join(folder, name), { recursive: true })
  for (const name of ['trixie', 'forky']) writeFileSync(join(folder, name, 'holds'), name)
  t.strictSame(newerQemus(folder), [join(folder, 'forky'), join(folder, 'trixie')])
  mkdirSync(join(folder, 'half'))
  t.throws(() => newerQemus(folder), /half is not what scripts\/newer-qemu makes/)
})

t.test(
  'files that QEMU judges run again with each newer one, more of them thoroughly',
  async (t) => {
    t.strictSame(newerRuns([TEXT, BITMAP, COMMIT], ['a', 'b'], false), [
      { file: BITMAP, qemu: 'a' },
      { file: BITMAP, qemu: 'b' },
    ])
    t.strictSame(newerRuns([TEXT, BITMAP, COMMIT], ['a'], true), [
      { file: BITMAP, qemu: 'a' },
      { file: COMMIT, qemu: 'a' },
    ])
    t.strictSame(newerRuns([BITMAP], [], true), [])
  },
)

t.test('every file that is to run with a newer QEMU exists', async (t) => {
  for (const name of [...QUICK, ...THOROUGH]) {
    t.ok(existsSync(new URL(`../${name}.test.js`, import.meta.url)), name)
  }
})

t.test("a run finds its QEMU's tools first", async (t) => {
  t.strictSame(environmentOf({ file: BITMAP }, true), {})
  t.match(environmentOf({ file: BITMAP, qemu: '/q' }, true), {
    PATH: /^\/q\/bin:/,
    IMAGES: process.env.IMAGES ?? '50',
  })
})
