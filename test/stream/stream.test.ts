/** Images as streams hold what images in files hold. */
import { createWriteStream, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setTimeout as pause } from 'node:timers/promises'
import t, { type Test } from 'tap'
import {
  type CustomSource,
  fullBackup,
  fullBackupStream,
  type ImageStream,
  incrementalBackupStream,
} from '../../lib/index.ts'
import { randomChanges } from '../support/changes.ts'
import { CLI } from '../support/cli.ts'
import { noise } from '../support/disks.ts'
import { someOf } from '../support/effort.ts'
import { startImages } from '../support/image-server.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuImgSame, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(300_000)

const MIB = 2 ** 20
const qcow2 = (path: string) => ({ path, format: 'qcow2' }) as const

/** Stores a stream, of which everything that was said has to be true. */
async function store(t: Test, image: ImageStream, path: string) {
  await pipeline(image.stream, createWriteStream(path))
  const result = await image.done
  t.equal(statSync(path).size, image.size, 'as long as was said')
  t.equal(result.fileSize, image.size)
  const { virtualSize, dataBytes, zeroBytes, unchangedBytes } = result
  t.equal(virtualSize, image.virtualSize)
  t.equal(dataBytes + zeroBytes + unchangedBytes, virtualSize)
  const { status, report } = qemuImgCheck(path)
  t.equal(status, 0, 'sound')
  t.notOk(report.leaks, 'without leaks')
  return result
}

const CLUSTER_SIZES = [512, 4096, 65536, 2 * MIB]
for (const seed of [1, 2, 3]) {
  t.test(`random disks and changes, ${seed}: as in a file`, async (t) => {
    const size = (seed === 2 ? 64 : 33) * MIB + (seed === 3 ? 512 : 0)
    const directory = t.testdir()
    const [disk, full, monday] = ['disk', 'full', 'monday'].map((name) =>
      join(directory, `${name}.qcow2`),
    )
    qemuImg('create', '-q', '-f', 'qcow2', disk, `${size}`)
    qemuIo(disk, ...randomChanges(size, 40, seed))
    for (const clusterSize of someOf(CLUSTER_SIZES, seed)) {
      await store(t, await fullBackupStream(disk, { clusterSize }), full)
      t.ok(qemuImgSame(qcow2(disk), qcow2(full)), `full, clusters of ${clusterSize}`)
    }
    qemuImg('bitmap', '--add', disk, 'b')
    qemuIo(disk, ...randomChanges(size, 40, 100 + seed))
    for (const clusterSize of someOf(CLUSTER_SIZES, seed + 1)) {
      const options = { bitmap: 'b', backing: full, clusterSize }
      await store(t, await incrementalBackupStream(disk, options), monday)
      t.ok(qemuImgSame(qcow2(disk), qcow2(monday)), `incremental, clusters of ${clusterSize}`)
      const info = qemuImgInfo(monday)
      t.equal(info['backing-filename'], 'full.qcow2')
      t.equal(info['backing-filename-format'], 'qcow2')
    }
  })
}

t.test('a wiped disk shares its tables, or does not', async (t) => {
  const directory = t.testdir()
  const [disk, full, monday] = ['disk', 'full', 'monday'].map((name) =>
    join(directory, `${name}.qcow2`),
  )
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=64k', disk, '64G')
  qemuIo(disk, 'write -q -P 1 0 1M')
  await fullBackup(disk, full)
  qemuImg('bitmap', '--add', disk, 'b')
  qemuIo(disk, ...Array.from({ length: 64 }, (_, i) => `write -q -z ${i}G 1G`))
  const options = { bitmap: 'b', backingName: 'full.qcow2' }
  const shared = await store(t, await incrementalBackupStream(disk, options), monday)
  t.ok(shared.fileSize < MIB)
  t.equal(shared.zeroBytes, 64 * 2 ** 30)
  t.ok(qemuImgSame(qcow2(disk), qcow2(monday)))
  const own = { ...options, sharedTables: false }
  const unshared = await store(t, await incrementalBackupStream(disk, own), monday)
  t.ok(unshared.fileSize > 128 * 65536)
  t.ok(qemuImgSame(qcow2(disk), qcow2(monday)))
})

t.test('from an imageio server to a stream', async (t) => {
  const directory = t.testdir()
  const [disk, full, monday] = ['disk', 'full', 'monday'].map((name) =>
    join(directory, `${name}.qcow2`),
  )
  qemuImg('create', '-q', '-f', 'qcow2', disk, '32M')
  qemuIo(disk, ...randomChanges(32 * MIB, 20, 4))
  await fullBackup(disk, full)
  qemuImg('bitmap', '--add', disk, 'b')
  qemuIo(disk, ...randomChanges(32 * MIB, 20, 5))
  const images = await startImages(t)
  const ticket = await images.ticket({ url: `file://${disk}`, size: 32 * MIB, dirty: true })
  const url = `http://127.0.0.1:${images.port}/images/${ticket}`
  const { unchangedBytes } = await store(
    t,
    await incrementalBackupStream(url, { backing: full }),
    monday,
  )
  t.ok(unchangedBytes > 0)
  t.ok(qemuImgSame(qcow2(disk), qcow2(monday)))
})

/** A disk whose extents say data everywhere. */
function source(size: number, read: CustomSource['read']): CustomSource {
  return {
    name: 'volume 9',
    size,
    *extents() {
      yield { start: 0, length: size, zero: false }
    },
    read,
  }
}

t.test('what turns out to be zero is stored as it was promised', async (t) => {
  const size = 8 * MIB
  const content = Buffer.alloc(size)
  noise(MIB).copy(content, 3 * MIB)
  const path = join(t.testdir(), 'full.qcow2')
  const disk = source(size, async (start, length) => content.subarray(start, start + length))
  const { dataBytes } = await store(t, await fullBackupStream(disk), path)
  t.equal(dataBytes, size)
  qemuImg('convert', '-O', 'raw', path, `${path}.raw`)
  t.ok(readFileSync(`${path}.raw`).equals(content))
})

t.test('a consumer that waits holds the source, in bounded memory', async (t) => {
  const size = 256 * MIB
  let read = 0
  const block = noise(2 * MIB)
  const disk = source(size, async (_, length) => {
    read += length
    return block.subarray(0, length)
  })
  const { stream, done } = await fullBackupStream(disk)
  let taken = 0
  let most = 0
  const slow = new Writable({
    write(chunk: Buffer, _, next) {
      taken += chunk.length
      most = Math.max(most, read - taken)
      if (taken < 64 * MIB) setTimeout(next, 1)
      else next()
    },
  })
  await pipeline(stream, slow)
  await done
  t.equal(read, size)
  t.ok(most < 128 * MIB, `${most} bytes were read ahead`)
})

t.test('a consumer that leaves ends it, with its reason', async (t) => {
  const block = noise(2 * MIB)
  let closes = 0
  const disk = {
    ...source(256 * MIB, async (_, length) => block.subarray(0, length)),
    close: () => void closes++,
  }
  const { stream, done } = await fullBackupStream(disk)
  stream.on('error', () => {})
  stream.once('data', () => stream.destroy(new Error('no space on tape')))
  await t.rejects(done, { message: /no space on tape/ })
  t.equal(closes, 1)

  const other = await fullBackupStream(disk)
  other.stream.destroy()
  await t.rejects(other.done, { code: 'IO', message: /closed by its reader/ })
})

t.test('a source that fails fails the stream, which is not complete', async (t) => {
  const block = noise(2 * MIB)
  const disk = source(16 * MIB, async (start, length) => {
    if (start > 8 * MIB) throw new Error('volume 9 is gone')
    return block.subarray(0, length)
  })
  const { stream, done, size } = await fullBackupStream(disk, { retries: 0 })
  let taken = 0
  const read = async () => {
    for await (const chunk of stream) taken += chunk.length
  }
  await t.rejects(read(), { code: 'IO', message: /volume 9 is gone/ })
  await t.rejects(done, { code: 'IO' })
  t.ok(taken < size)
})

t.test('data where there was none when it began is a change', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, noise(MIB))
  truncateSync(path, 32 * MIB)
  let looked = 0
  const disk: CustomSource = {
    ...source(32 * MIB, async (_, length) => noise(length)),
    *extents() {
      const hole = looked++ === 0
      yield { start: 0, length: MIB, zero: false }
      yield { start: MIB, length: 31 * MIB, zero: hole }
    },
  }
  const { stream, done } = await fullBackupStream(disk)
  await t.rejects(buffer(stream), { code: 'SOURCE_CHANGED' })
  await t.rejects(done, { message: /has data at 1048576 where it had none/ })
})

t.test('a file that is replaced meanwhile is a change', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, noise(16 * MIB))
  const { stream, done, size } = await fullBackupStream(path)
  let taken = 0
  const read = async () => {
    for await (const chunk of stream) {
      if (taken === 0) truncateSync(path, 17 * MIB)
      taken += chunk.length
    }
  }
  await t.rejects(read(), { code: 'SOURCE_CHANGED' })
  await t.rejects(done, { code: 'SOURCE_CHANGED' })
  t.ok(taken < size, 'the end is missing')
})

t.test('an abort ends it', async (t) => {
  const disk = source(64 * MIB, (_, length) => pause(50).then(() => noise(length)))
  const controller = new AbortController()
  const { stream, done } = await fullBackupStream(disk, { signal: controller.signal })
  stream.on('error', () => {})
  stream.once('data', () => controller.abort())
  await t.rejects(done, { code: 'ABORTED' })
  t.ok(stream.destroyed)
})

t.test('wrong arguments', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, noise(MIB))
  await t.rejects(fullBackupStream(path, { force: true } as never), { code: 'USAGE' })
  await t.rejects(fullBackupStream(`${path}.none`), { code: 'IO', errno: 'ENOENT' })
  const unnamed = incrementalBackupStream(path, { backing: path })
  await t.rejects(unnamed, { code: 'USAGE', argument: 'bitmap' })
  const alone = incrementalBackupStream(`${path}.qcow2`, { bitmap: 'b' })
  await t.rejects(alone, { code: 'IO' }, 'there is no such disk')
  const qcow = `${path}.qcow2`
  qemuImg('create', '-q', '-f', 'qcow2', qcow, '1M')
  qemuImg('bitmap', '--add', qcow, 'b')
  const baseless = incrementalBackupStream(qcow, { bitmap: 'b' })
  await t.rejects(baseless, { code: 'USAGE', argument: 'backing' })
  const long = { bitmap: 'b', backingName: 'x'.repeat(1000), clusterSize: 512 }
  await t.rejects(incrementalBackupStream(qcow, long), { code: 'USAGE', argument: 'backingName' })
  await t.rejects(incrementalBackupStream(qcow, { bitmap: 'b', backing: path }), {
    code: 'BAD_IMAGE',
  })
})

t.test('15 TiB with a few scattered blocks', async (t) => {
  const path = join(t.testdir(), 'disk.raw')
  writeFileSync(path, '')
  truncateSync(path, 15 * 2 ** 40)
  for (const at of ['1T', '7T', '14T']) qemuIo({ path, format: 'raw' }, `write -q -P 3 ${at} 64k`)
  const target = `${path}.qcow2`
  const { dataBytes } = await store(t, await fullBackupStream(path, { format: 'raw' }), target)
  t.equal(dataBytes, 3 * 65536)
})

/** Runs a line of shell in a directory where `backup` is the program. */
function shell(cwd: string, line: string) {
  const script = 'cd "$1"; node=$2 cli=$3; backup() { "$node" "$cli" "$@"; }; set -o pipefail; '
  return run('bash', ['-c', script + line, 'bash', cwd, process.execPath, CLI])
}

t.test('the command line: in a pipe, nothing is sought, and the result is on stderr', async (t) => {
  const cwd = t.testdir()
  writeFileSync(join(cwd, 'disk.raw'), noise(3 * MIB))
  const piped = shell(cwd, 'backup full disk.raw - --json | cat > full.qcow2')
  t.equal(piped.status, 0, piped.stderr)
  const [first, last] = piped.stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.equal(first.fileSize, statSync(join(cwd, 'full.qcow2')).size)
  t.match(last, { fileSize: first.fileSize, dataBytes: 3 * MIB, virtualSize: 3 * MIB })
  t.equal(qemuImgCheck(join(cwd, 'full.qcow2')).status, 0)
  const raw = { path: join(cwd, 'disk.raw'), format: 'raw' } as const
  t.ok(qemuImgSame(raw, qcow2(join(cwd, 'full.qcow2'))))

  const left = shell(cwd, 'backup full disk.raw - | head -c 100 > /dev/null')
  t.equal(left.status, 1)
  t.match(left.stderr, /^qcow2-backup: standard output: was closed by its reader$/m)

  const full = shell(cwd, 'backup full disk.raw - > /dev/full')
  t.equal(full.status, 1)
  t.match(full.stderr, /^qcow2-backup: standard output: no space left on device$/m)

  const stuck = shell(
    cwd,
    'mkfifo fifo; sleep 60 < fifo & reader=$!; "$node" "$cli" full disk.raw - > fifo & pid=$!; ' +
      'sleep 1.5; kill -TERM $pid; wait $pid; status=$?; kill $reader; exit $status',
  )
  t.equal(stuck.status, 143, 'a reader that does not read does not keep a signal waiting')
  t.match(stuck.stderr, /^qcow2-backup: .*(interrupted|terminated)/m)
})
