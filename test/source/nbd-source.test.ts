import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSource as openPublic } from '../../lib/index.ts'
import { openSource } from '../../lib/source/open-source.ts'
import type { SourceExport } from '../../lib/source/source.ts'
import { runCli } from '../support/cli.ts'
import { markedOf } from '../support/dirty-mappings.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { nbdinfoMap } from '../support/nbdinfo.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImg, qemuImgMap, qemuImgSame, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { extentsOf, mappingsOf } from '../support/read-source.ts'

const MIB = 2 ** 20

/** Runs of zero and hole, neighbours joined. */
type Run = { start: number; length: number; zero: boolean; hole: boolean }

function joined(runs: readonly Run[]): Run[] {
  const out: Run[] = []
  for (const run of runs) {
    const last = out[out.length - 1]
    if (last && last.zero === run.zero && last.hole === run.hole) last.length += run.length
    else out.push({ ...run })
  }
  return out
}

/** What libnbd's own tool is told. */
function judged(uri: string): Run[] {
  return joined(
    nbdinfoMap(uri).map(({ offset, length, type }) => {
      return { start: offset, length, zero: (type & 2) !== 0, hole: (type & 3) === 3 }
    }),
  )
}

t.test('extents are what nbdinfo and qemu-img are told', async (t) => {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '5G')
  qemuIo(
    disk,
    ...['write -P 1 0 1M', 'write -z 64k 64k', 'write -z -u 3G 1M', 'write -P 2 3071M 1M'],
    ...['write -P 3 5368643584 64k', 'discard 512k 64k'],
  )
  const servers = {
    'qemu-nbd': (await startQemuNbd(t, disk, { name: 'a disk/1' })).uri,
    memory: (await startNbdkit(t, 'memory', '3G')).uri(),
    data: (
      await startNbdkit(t, 'data', '1 2 3 @0x1000000 "x"*100 @0x90000000 9 @0x90000fff 9')
    ).uri(),
    'sparse-random': (await startNbdkit(t, 'sparse-random', '3G', 'seed=1')).uri(),
    'in blocks of 64 KiB': (
      await startNbdkit(
        t,
        ...['--filter=blocksize-policy', 'sparse-random', '512M', 'seed=2', 'runlength=1048576'],
        ...['blocksize-minimum=65536', 'blocksize-preferred=65536', 'blocksize-error-policy=error'],
      )
    ).uri(),
  }
  for (const [name, uri] of Object.entries(servers)) {
    const source = await openSource(uri)
    t.teardown(() => source.close())
    t.equal(source.name, uri)
    t.equal(source.format, 'raw')
    const extents = await extentsOf(source)
    t.strictSame(extents, judged(uri), name)
    // QEMU rounds to the server's blocks.
    if (name === 'in blocks of 64 KiB') continue
    const withoutHole = (runs: { start: number; length: number; zero: boolean }[]) => {
      return joined(runs.map(({ start, length, zero }) => ({ start, length, zero, hole: false })))
    }
    t.strictSame(withoutHole(extents), withoutHole(qemuImgMap(uri, 'raw')), `${name}: qemu-img map`)
  }
})

t.test(
  'a server that tells a little at a time, and of other sizes than were asked for',
  async (t) => {
    // 1,000 bytes of data, 1,000 zero, and so on; never more than one run at a time.
    const script = [
      'start=$4; end=$((start / 1000 * 1000 + 1000))',
      'if [ $((start / 1000 % 2)) = 1 ]; then type=hole,zero; else type=0; fi',
      'echo $start $((end - start)) $type',
    ].join('; ')
    const nbdkit = await startNbdkit(
      t,
      ...['eval', 'get_size=echo 10240', 'pread=head -c $3 /dev/zero', 'can_extents=exit 0'],
      `extents=${script}`,
    )
    const source = await openSource(nbdkit.uri())
    t.teardown(() => source.close())
    const mappings = await mappingsOf(source)
    t.strictSame(
      mappings.map(({ kind, start, length }) => ({ kind, start, length })),
      Array.from({ length: 11 }, (_, i) => ({
        kind: i % 2 === 1 ? 'hole' : 'data',
        start: i * 1000,
        length: i < 10 ? 1000 : 240,
      })),
    )
    // 1000 to 2000 is zero: whole sectors of it are 1024 to 1536.
    t.strictSame((await extentsOf(source)).slice(0, 3), [
      { start: 0, length: 1024, zero: false, hole: false },
      { start: 1024, length: 512, zero: true, hole: true },
      { start: 1536, length: 1536, zero: false, hole: false },
    ])
  },
)

t.test('a size that is not a multiple of 512 is rounded up, as qemu-img does', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk'), 5000, [{ at: 4500, bytes: noise(500) }])
  const nbdkit = await startNbdkit(t, 'file', disk)
  const source = await openSource(nbdkit.uri())
  t.teardown(() => source.close())
  const copy = join(directory, 'copy')
  qemuImg('convert', '-f', 'raw', '-O', 'raw', nbdkit.uri(), copy)
  t.equal(source.size, 5120)
  t.equal(qemuImgMap(copy, 'raw').at(-1)!.start + qemuImgMap(copy, 'raw').at(-1)!.length, 5120)
  t.equal(source.stores[0].size, 5000)
  const last = (await mappingsOf(source)).at(-1)!
  t.match(last, { kind: 'hole', start: 5000, length: 120 })
  t.match((await extentsOf(source)).at(-1), { zero: false })
})

t.test('servers that cannot say what they hold: all is data', async (t) => {
  for (const [name, args] of Object.entries({
    'no structured replies': ['--no-sr', 'memory', '1M'],
    'no fixed newstyle': ['--mask-handshake=0', 'memory', '1M'],
    oldstyle: ['--oldstyle', 'memory', '1M'],
    'no extents': ['--filter=noextents', 'memory', '1M'],
  })) {
    const nbdkit = await startNbdkit(t, ...args)
    const source = await openSource(nbdkit.uri())
    t.teardown(() => source.close())
    t.strictSame(await markedOf(source), ['0K +1024K data'], name)
  }
})

t.test('an empty export is an empty disk', async (t) => {
  const nbdkit = await startNbdkit(t, 'null', '0')
  const source = await openSource(nbdkit.uri())
  t.teardown(() => source.close())
  t.equal(source.size, 0)
  t.strictSame(await mappingsOf(source), [])
  t.strictSame(await extentsOf(source), [])
})

t.test('the copy is given the sizes and identity of the export', async (t) => {
  const several = (await startNbdkit(t, 'memory', '1M')).uri('x')
  const one = (
    await startNbdkit(t, '--filter=multi-conn', 'memory', '1M', 'multi-conn-mode=disable')
  ).uri()
  const strict = await startNbdkit(
    t,
    ...['--filter=blocksize-policy', 'memory', '1M', 'blocksize-minimum=4096'],
    ...['blocksize-preferred=65536', 'blocksize-maximum=1M'],
  )
  const told = async (uri: string, options = {}) => {
    const source = await openSource(uri, options)
    t.teardown(() => source.close())
    t.equal(source.stores.length, 1)
    return source.stores[0] as SourceExport
  }
  t.match(await told(several), {
    path: several,
    uri: several,
    size: MIB,
    connections: 4,
    requests: 64,
    blockMin: 1,
    blockMax: 32 * MIB,
    timeoutMs: 30_000,
  })
  t.equal((await told(one)).connections, 1, 'a server for one')
  t.equal((await told(one, { connections: 3 })).connections, 3, 'whose user knows better')
  t.match(await told(several, { connections: 2, requests: 5, timeoutMs: 7000 }), {
    connections: 2,
    requests: 5,
    timeoutMs: 7000,
  })
  t.match(await told(strict.uri()), { blockMin: 4096, blockMax: MIB })
})

t.test('a server that takes a single client, as qemu-nbd does unless told otherwise', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk'), 8 * MIB, [{ at: 3 * MIB, bytes: noise(MIB) }])
  const { uri } = await startQemuNbd(t, disk, { format: 'raw', shared: 1 })
  const target = join(directory, 'target')
  const { status, stderr } = await runCli(['full', uri, target, '--timeout', '5'])
  t.equal(status, 0, stderr)
  t.ok(qemuImgSame({ path: disk, format: 'raw' }, { path: target, format: 'qcow2' }))

  const source = await openSource(uri, { timeoutMs: 5000 })
  t.teardown(() => source.close())
  const expected = ['0K +3072K hole', '3072K +1024K data', '4096K +4096K hole']
  t.strictSame(await markedOf(source), expected)
  t.strictSame(await markedOf(source), expected, 'again, on another connection')
})

t.test('options out of range, and those of files, are refused for an NBD export', async (t) => {
  const uri = 'nbd://localhost:1/x'
  const times = 'a whole number from 1 to 86400000'
  for (const [options, message] of [
    [{ connections: 0 }, 'connections: 0 is not a whole number from 1 to 16'],
    [{ connections: 17 }, 'connections: 17 is not a whole number from 1 to 16'],
    [{ timeoutMs: 0 }, `timeoutMs: 0 is not ${times}`],
    [{ timeoutMs: 86_400_001 }, `timeoutMs: 86400001 is not ${times}`],
    [{ format: 'qcow2' }, 'format: an NBD export is a raw disk'],
  ] as const) {
    await t.rejects(openPublic(uri, options), { code: 'USAGE', message })
  }
  const source = await openSource((await startNbdkit(t, 'memory', '1M')).uri(), { format: 'raw' })
  t.teardown(() => source.close())
  const why = { code: 'USAGE', message: 'detectZeroes: is only supported for files' }
  t.throws(() => source.extents({ detectZeroes: true }), why)
})

t.test('an export that changes its size meanwhile is noticed', async (t) => {
  const sizes = join(t.testdir({ size: '1M' }), 'size')
  const nbdkit = await startNbdkit(
    t,
    ...['eval', `get_size=cat ${sizes}`, 'pread=head -c $3 /dev/zero', 'can_multi_conn=exit 0'],
  )
  const source = await openSource(nbdkit.uri())
  await source.checkUnchanged()
  const change = (size: string, how: string) => {
    writeFileSync(sizes, size)
    const changed = { code: 'SOURCE_CHANGED', what: nbdkit.uri(), why: new RegExp(how) }
    return t.rejects(source.checkUnchanged(), changed)
  }
  await change('2M', 'grew from 1048576 to 2097152 bytes while it was read')
  await change('512K', 'shrank from 1048576 to 524288 bytes while it was read')
  await source.close()
  await nbdkit.stop()
  await t.resolves(source.checkUnchanged(), 'a server that has gone has given all')
})
