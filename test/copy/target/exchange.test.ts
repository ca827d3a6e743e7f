/** File systems on which two names cannot change places (vfat, NFS, many FUSE ones). */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openTarget, publishAll, type Target } from '../../../lib/copy/target/open-target.ts'
import { native } from '../../../lib/native.ts'

const OLD = 'what stood there'

/** Lets renameat2(2) answer so until the test ends. */
function withoutExchange(test: Test, code: string): void {
  const addon = native()
  const { exchangeNames } = addon
  addon.exchangeNames = () => {
    throw Object.assign(new Error(code), { code })
  }
  test.teardown(() => Object.assign(addon, { exchangeNames }))
}

async function open(path: string, content: string): Promise<Target> {
  const target = await openTarget(path, { force: true, sources: [] })
  await target.handle!.write(content, 0)
  return target
}

for (const code of ['EINVAL', 'ENOSYS', 'ENOTSUP', 'EPERM']) {
  t.test(`without RENAME_EXCHANGE (${code})`, async (t) => {
    withoutExchange(t, code)
    const directory = t.testdir({ a: OLD, b: OLD })
    const at = (name: string) => join(directory, name)

    const replaced = await open(at('a'), 'new')
    t.equal(readFileSync(at('a'), 'utf8'), OLD, 'as it was until it is published')
    t.strictSame(await publishAll([[replaced]]), [])
    await replaced.discard()
    t.equal(readFileSync(at('a'), 'utf8'), 'new')
    t.strictSame(readdirSync(directory), ['a', 'b'])

    const unpublished = await open(at('b'), 'new')
    await unpublished.discard()
    t.equal(readFileSync(at('b'), 'utf8'), OLD)

    // Of two that are published together the first cannot be taken back: the error says so.
    const [first, second] = [await open(at('b'), 'new'), await open(at('c'), 'new')]
    writeFileSync(at('c'), 'of another')
    const gone = `${at('b')} is the new file, complete; the one before is gone`
    await t.rejects(publishAll([[first], [second]]), {
      code: 'TARGET_EXISTS',
      message: `${at('c')}: was made by another process meanwhile; ${gone}`,
    })
    for (const target of [first, second]) await target.discard()
    t.equal(readFileSync(at('b'), 'utf8'), 'new')
    t.equal(readFileSync(at('c'), 'utf8'), 'of another')
    t.strictSame(readdirSync(directory), ['a', 'b', 'c'])
  })
}

t.test(
  'another file that has the name meanwhile stays, also without RENAME_EXCHANGE',
  async (t) => {
    withoutExchange(t, 'EINVAL')
    const path = join(t.testdir({ a: OLD }), 'a')
    const target = await open(path, 'new')
    const other = `${path}.other`
    writeFileSync(other, 'of another')
    const { renameSync } = await import('node:fs')
    renameSync(other, path)
    await t.rejects(publishAll([[target]]), {
      code: 'TARGET_EXISTS',
      message: `${path}: was replaced by another process meanwhile`,
    })
    await target.discard()
    t.equal(readFileSync(path, 'utf8'), 'of another')
    t.strictSame(readdirSync(t.testdirName), ['a'])
  },
)

t.test('an error of renameat2 that says something else is an error', async (t) => {
  withoutExchange(t, 'EIO')
  const path = join(t.testdir({ a: OLD }), 'a')
  const target = await open(path, 'new')
  await t.rejects(publishAll([[target]]), { code: 'IO', what: path })
  await target.discard()
  t.equal(readFileSync(path, 'utf8'), OLD)
  t.strictSame(readdirSync(t.testdirName), ['a'], 'and nothing is left')
})
