/** QEMU's words, and its errors, are for the commands that print what qemu-img prints. */
import { join } from 'node:path'
import t from 'tap'
import { diffToBitmap, editBitmap, isBackupError, QemuImgError } from '../../lib/index.ts'
import { HOSTILE_IMAGES, writeHostile } from '../support/hostile-images.ts'

const OVER_AND_OVER =
  HOSTILE_IMAGES['one table, all of whose clusters are the same, that 90,000 L1 entries share']

t.test('an edit of an image that its check gives up on is refused in our words', async (t) => {
  const directory = t.testdir({ 'empty.raw': '' })
  writeHostile(directory, OVER_AND_OVER())
  const image = join(directory, 'disk.qcow2')
  const calls: Record<string, () => Promise<unknown>> = {
    editBitmap: () => editBitmap(image, 'new', [{ kind: 'add' }]),
    diffToBitmap: () => diffToBitmap(image, join(directory, 'empty.raw'), 'new'),
  }
  for (const [name, call] of Object.entries(calls)) {
    const error = await call().then(
      () => undefined,
      (error) => error,
    )
    t.ok(isBackupError(error), name)
    t.notOk(error instanceof QemuImgError, name)
    t.match(error, {
      code: 'BAD_IMAGE',
      what: image,
      why: /refers to the same tables over and over/,
    })
  }
})
