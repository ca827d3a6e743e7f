/** A file that is open is removed by its name, and nothing else is. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openFile } from '../../lib/image/file.ts'
import { removeOpened } from '../../lib/image/remove-opened.ts'
import { actAtCall, NAMING } from '../support/at-calls.ts'

/** By which name the file is removed, and which one is taken by another file meanwhile. */
const CASES = {
  'by its name': { given: 'image', swapped: 'image' },
  'by a link, the file': { given: 'link', swapped: 'image' },
  'by a link, the link': { given: 'link', swapped: 'link' },
}

for (const [name, { given, swapped }] of Object.entries(CASES)) {
  t.test(`another file that takes the name at any call is still there: ${name}`, async (t) => {
    const dir = join(t.testdir(), 'dir')
    const at = (file: string) => join(dir, file)
    const removed = async (call: number) => {
      rmSync(dir, { recursive: true, force: true })
      mkdirSync(dir)
      writeFileSync(at('image'), 'image')
      symlinkSync('image', at('link'))
      const file = await openFile(at(given))
      const swap = () => {
        rmSync(at(swapped))
        writeFileSync(at(swapped), 'precious')
      }
      try {
        return await actAtCall(call, at(swapped), swap, () => removeOpened(at(given), file), NAMING)
      } finally {
        await file.handle.close()
      }
    }
    const { count, outcome } = await removed(Number.POSITIVE_INFINITY)
    t.equal(outcome.status, 'fulfilled', 'it is removed')
    t.same(readdirSync(dir), given === 'link' ? [] : ['link'], 'and nothing else is there')
    t.ok(count > 2, 'the name is looked up, compared and changed')
    for (let call = 0; call < count; call++) {
      const { outcome } = await removed(call)
      // By a link the file may be removed before the link is another one.
      const isLeft =
        outcome.status === 'rejected' || (swapped === 'link' && !existsSync(at('image')))
      t.ok(isLeft, `call ${call}`, { outcome })
      if (outcome.status === 'rejected') t.match(outcome.reason, { code: 'SOURCE_CHANGED' })
      t.equal(readFileSync(at(swapped), 'utf8'), 'precious', `call ${call}`)
      t.notOk(
        readdirSync(dir).some((file) => file.startsWith('.')),
        `call ${call}: no other name`,
      )
    }
  })
}

t.test('what cannot get its name back is said to be where it is', async (t) => {
  const dir = t.testdir({ image: 'image' })
  const at = (name: string) => join(dir, name)
  const file = await openFile(at('image'))
  // link(2) does not work for a directory.
  const swap = () => {
    rmSync(at('image'))
    mkdirSync(at('image'))
  }
  const isRename = { count: 0 }
  const { outcome } = await actAtCall(
    0,
    at('image'),
    () => {
      isRename.count++
      swap()
    },
    () => removeOpened(at('image'), file),
    ['rename'],
  )
  await file.handle.close()
  t.equal(isRename.count, 1)
  const [aside] = readdirSync(dir)
  t.match(outcome, { status: 'rejected', reason: { why: new RegExp(`is ${at(aside)} now$`) } })
  t.notOk(existsSync(at('image')))
})
