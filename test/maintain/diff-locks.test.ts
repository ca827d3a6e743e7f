/** diff has IMAGE for itself; what IMAGE builds on and keeps its data in may be anybody's to read. */
import { linkSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openWritable } from '../../lib/image/file.ts'
import { lockFile, READING, WRITING } from '../../lib/image/locks.ts'
import { diffDisks, diffToBitmap } from '../../lib/index.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

/** Locks a file as another process would, for as long as something is done. */
async function whileLocked<T>(
  path: string,
  use: typeof READING,
  run: () => Promise<T>,
): Promise<T> {
  const { handle } = await openWritable(path)
  try {
    lockFile(handle, path, use)
    return await run()
  } finally {
    await handle.close()
  }
}

function setUp(t: Test) {
  const at = (name: string) => join(dir, name)
  const dir = t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', at('base'), '-F', 'qcow2', at('top'))
  qemuImg('create', '-q', '-f', 'qcow2', at('backup'), '1M')
  qemuIo(at('top'), 'write -q -P 1 64k 64k')
  return at
}

t.test('nobody else may write to IMAGE, what it builds on, or the baseline', async (t) => {
  const at = setUp(t)
  for (const name of ['top', 'base', 'backup']) {
    const diff = () => diffToBitmap(at('top'), at('backup'), 'b')
    await t.rejects(whileLocked(at(name), WRITING, diff), { code: 'IN_USE' }, name)
    t.notMatch(qemuImg('info', '--output=json', at('top')), /bitmaps/, `${name}: nothing is added`)
  }
})

t.test('others may read what IMAGE builds on, and the baseline', async (t) => {
  const at = setUp(t)
  for (const name of ['base', 'backup']) {
    const diff = () => diffToBitmap(at('top'), at('backup'), `with ${name}`)
    const { dirtyBytes } = await whileLocked(at(name), READING, diff)
    t.equal(dirtyBytes, 65536, name)
  }
  const top = whileLocked(at('top'), READING, () => diffToBitmap(at('top'), at('backup'), 'b'))
  await t.rejects(top, { code: 'IN_USE' }, 'IMAGE itself is written to')
})

t.test('the file in which IMAGE keeps its data is no exception either', async (t) => {
  const at = setUp(t)
  const options = `data_file=${at('data')},data_file_raw=on`
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, at('image'), '1M')
  qemuIo(at('image'), 'write -q -P 1 0 64k')
  const diff = () => diffToBitmap(at('image'), at('backup'), 'b')
  await t.rejects(whileLocked(at('data'), WRITING, diff), { code: 'IN_USE' })
})

t.test('a file that is given twice is no other process', async (t) => {
  const at = setUp(t)
  linkSync(at('top'), at('link'))
  const again = { code: 'IN_USE', hint: undefined }
  const twice = diffToBitmap(at('top'), at('top'), 'b')
  await t.rejects(twice, { ...again, why: 'is open for writing here already' })
  const why = `is the same file as ${at('top')}, which is open for writing here already`
  await t.rejects(diffToBitmap(at('top'), at('link'), 'b'), { ...again, what: at('link'), why })
  const into = diffDisks(at('top'), at('backup'), { mergeInto: at('link'), bitmap: 'b' })
  const inUse = `is the same file as ${at('top')}, which is in use here already`
  await t.rejects(into, { ...again, what: at('link'), why: inUse })
  // A program that holds it is another process, and stays one.
  const daemon = await startStorageDaemon(t)
  await daemon.open('node', at('top'))
  const other = diffToBitmap(at('backup'), at('top'), 'b')
  await t.rejects(other, { code: 'IN_USE', why: /in another process/ })
})
