import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { addBitmap, change } from '../../../scripts/perf/changed-disks.ts'
import { granuleCommand, READ_FAST, WRITE_IN_ORDER } from '../../../scripts/perf/granules.ts'
import { succeed } from '../../../scripts/perf/process.ts'
import { startStorageDaemon } from '../../../scripts/perf/servers/storage-daemon.ts'
import { requireNoData, requireSame } from '../../../scripts/perf/verify.ts'
import { testStage } from './stage.ts'

const GRANULE = 65536
const SIZE = 64 * GRANULE

t.test('changes are in the disk and its bitmap, and the job copies just them', async (t) => {
  const stage = testStage(t)
  const { signal } = stage
  const dir = t.testdir()
  const [disk, raw, target] = ['disk', 'raw', 'target'].map((name) => join(dir, name))
  const create = (path: string) => ['qemu-img', 'create', '-q', '-f', 'qcow2', path, `${SIZE}`]
  await succeed(create(disk), signal)
  await succeed(create(target), signal)
  await requireNoData(disk, signal)
  await addBitmap(disk, 'b', signal)

  const granules = [40, 3, 17].map((i) => ({ offset: i * GRANULE, length: GRANULE }))
  const bytes = Buffer.alloc(SIZE)
  await change(disk, granules, WRITE_IN_ORDER, stage, (offset, length) => {
    return bytes
      .fill(1 + offset / GRANULE, offset, offset + length)
      .subarray(offset, offset + length)
  })
  await writeFile(raw, bytes)
  await requireSame({ path: raw, format: 'raw' }, { path: disk, format: 'qcow2' }, signal)
  await t.rejects(requireNoData(disk, signal), {
    code: 'BAD_IMAGE',
    why: `stores data at ${3 * GRANULE}`,
  })

  const daemon = await startStorageDaemon({ path: disk, format: 'qcow2' }, 'b', stage)
  const map = ['nbdinfo', '--json', '--map=qemu:dirty-bitmap:b', daemon.uri]
  const listed: { offset: number; type: number }[] = JSON.parse((await succeed(map, signal)).stdout)
  const dirty = listed.filter(({ type }) => type === 1).map(({ offset }) => offset / GRANULE)
  t.same(dirty, [3, 17, 40])

  const run = await daemon.backup(target)
  t.match(run, { cpu: Number, peak: Number, written: Number, fileSize: Number, allocated: Number })
  t.ok(run.wall > 0 && run.fileSize > 3 * GRANULE)
  await requireSame({ path: disk, format: 'qcow2' }, { path: target, format: 'qcow2' }, signal)
  await succeed(await granuleCommand(READ_FAST, daemon.uri, granules, stage), signal)

  const past = [{ offset: SIZE, length: GRANULE }]
  const wrong = await granuleCommand(READ_FAST, daemon.uri, past, stage)
  await t.rejects(succeed(wrong, signal), { code: 'IO', why: /granules: .*Invalid argument/ })
})
