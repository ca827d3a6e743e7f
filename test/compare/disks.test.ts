/** Comparing the content of two disks when something is wrong with one of them. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { compareImages, diffDisks, fullBackup } from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { runCli } from '../support/cli.ts'
import { makeRaw, noise, prose } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { logged } from '../support/logged.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { ours, sameAsQemuImg } from '../support/parity.ts'
import { peek, poke, sizeOf } from '../support/patch.ts'
import { qemuImg } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20

/** A raw disk and a copy of it whose clusters are compressed. */
function compressedPair(t: Test, type: string, cluster: string) {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  makeRaw(at('raw'), 2 * MIB, [{ at: 0, bytes: prose(2 * MIB) }])
  const options = `compression_type=${type},cluster_size=${cluster}`
  qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, at('raw'), at('q'))
  return { dir, at }
}

for (const type of ['zlib', 'zstd']) {
  t.test(
    `${type}: damaged clusters are what they are to qemu-img, wherever the damage`,
    async (t) => {
      for (const cluster of ['4k', '64k', '2M']) {
        const { dir, at } = compressedPair(t, type, cluster)
        const sound = readFileSync(at('q'))
        const data = JSON.parse(qemuImg('map', '--output=json', at('q')))
        t.ok(data.length > 0)
        const random = randomNumbers(type.length + cluster.length)
        // Behind the metadata, which qemu-img convert writes first.
        const first = sound.indexOf(prose(64).subarray(0, 4))
        const from = first > 0 ? first : sound.length / 2
        for (let i = 0; i < effort(3, 60); i++) {
          writeFileSync(at('q'), sound)
          const length = 1 + random(40)
          const place = Math.floor(from) + random(sound.length - Math.floor(from) - length)
          poke(at('q'), place, random(2) === 0 ? noise(length, i) : Buffer.alloc(length))
          await sameAsQemuImg(t, dir, ['compare', '-f', 'raw', '-F', 'qcow2', 'raw', 'q'])
          await sameAsQemuImg(t, dir, ['compare', '-f', 'qcow2', '-F', 'raw', 'q', 'raw'])
        }
      }
    },
  )

  t.test(`${type}: diff counts a damaged cluster as different, and tells`, async (t) => {
    const { at } = compressedPair(t, type, '64k')
    // The stream of the sixth cluster.
    const l1 = Number(peek(at('q'), 40, 8).readBigUInt64BE())
    const l2 = Number(peek(at('q'), l1, 8).readBigUInt64BE() & 0x00fffffffffffe00n)
    const entry = peek(at('q'), l2 + 5 * 8, 8).readBigUInt64BE()
    t.ok((entry & (1n << 62n)) !== 0n, 'compressed')
    poke(at('q'), Number(entry & ((1n << 54n) - 1n)), Buffer.alloc(300, 0xff))
    const result = await diffDisks(at('raw'), at('q'), { granularity: 4096 })
    t.equal(result.dirtyBytes, 65536)
    t.match(result.unreadable, [
      { start: 5 * 65536, length: 65536, side: 1, why: 'the compressed cluster is damaged' },
    ])
  })

  t.test(`${type}: our own compressed backup is compared with its disk`, async (t) => {
    const { dir, at } = compressedPair(t, type, '64k')
    await fullBackup(at('raw'), at('backup'), { compress: type as 'zlib' | 'zstd' })
    await sameAsQemuImg(t, dir, ['compare', 'raw', 'backup'])
    poke(at('raw'), 777_777, Buffer.from('x'))
    await sameAsQemuImg(t, dir, ['compare', 'backup', 'raw'])
    const { dirtyBytes } = await diffDisks(at('raw'), at('backup'), { granularity: 512 })
    t.equal(dirtyBytes, 512)
  })
}

t.test('a file that shrinks meanwhile cannot be read, and is not taken for zeroes', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  // What is cut off is zero in the other file.
  makeRaw(at('a'), 8 * MIB, [
    { at: 0, bytes: noise(4 * MIB) },
    { at: 4 * MIB, bytes: Buffer.alloc(4 * MIB) },
  ])
  makeRaw(at('b'), 8 * MIB, [{ at: 0, bytes: noise(4 * MIB) }])
  t.match(await compareImages([at('a'), at('b')]), { identical: true })
  const onOpen = () => truncateSync(at('a'), 5 * MIB)
  const { identical, finding } = await compareImages([at('a'), at('b')], { onOpen })
  t.equal(identical, false)
  t.match(finding, { kind: 'unreadable', start: 4 * MIB, side: 0, why: /shorter than when it was/ })
})

t.test('an abort ends a comparison, with the reason as its cause', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  makeRaw(at('a'), 64 * MIB, [{ at: 0, bytes: noise(64 * MIB) }])
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at('a'), at('b'))
  const stop = new AbortController()
  const reason = new Error('enough')
  const onEqual = () => stop.abort(reason)
  await t.rejects(compareImages([at('a'), at('b')], { signal: stop.signal, onEqual }), {
    code: 'ABORTED',
    cause: reason,
  })
  const again = new AbortController()
  const onProgress = () => again.abort(reason)
  await t.rejects(diffDisks(at('a'), at('b'), { signal: again.signal, onProgress }), {
    code: 'ABORTED',
    cause: reason,
  })
})

t.test('an abort ends it at once, also while a server does not answer a read', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  writeFileSync(at('raw'), noise(4 * MIB))
  const log = `logfile=${at('log')}`
  const slow = ['--filter=log', '--filter=delay', 'file', at('raw'), 'rdelay=3600', log]
  const server = await startNbdkit(t, ...slow)
  const stop = new AbortController()
  const running = diffDisks(server.uri(), at('raw'), { signal: stop.signal })
  running.catch(() => {})
  await logged(at('log'), /Read id=/)
  stop.abort()
  await t.rejects(running, { code: 'ABORTED' })
})

t.test('an export is read on several connections', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  writeFileSync(at('raw'), noise(16 * MIB))
  writeFileSync(at('other'), noise(16 * MIB))
  poke(at('other'), 5 * MIB, Buffer.alloc(1))
  // Slow, so that there is always more to be read.
  const slow = ['--filter=log', '--filter=delay', 'file', at('raw'), 'rdelay=50ms']
  const server = await startNbdkit(t, ...slow, `logfile=${at('log')}`)
  const { dirtyBytes } = await diffDisks(server.uri(), at('other'), { connections: 3 })
  t.equal(dirtyBytes, 65536)
  const readers = new Set(
    readFileSync(at('log'), 'utf8')
      .split('\n')
      .flatMap((line) => /connection=(\d+) Read /.exec(line)?.[1] ?? []),
  )
  t.equal(readers.size, 3)
})

t.test('no failure of the command has the status of a difference', async (t) => {
  const { dir, at } = compressedPair(t, 'zstd', '64k')
  makeRaw(at('elsewhere'), MIB, [])
  const cases: [string[], number][] = [
    [['raw', 'missing'], 2],
    [['missing', 'raw'], 2],
    [['-f', 'qcow2', 'raw', 'q'], 2],
    [['-f', 'vmdk', 'raw', 'q'], 2],
    [['-T', 'fast', 'raw', 'q'], 2],
  ]
  const backing = ['-b', '/dev/null', '-F', 'raw', at('outside')]
  qemuImg('create', '-q', '-f', 'qcow2', '-u', ...backing, '1M')
  cases.push([['outside', 'raw'], 2])
  for (const [args, expected] of cases) {
    const { status, stdout } = await ours(['compare', ...args], dir)
    t.equal(status, expected, args.join(' '))
    t.equal(stdout, '')
  }
  // A table that lies outside the file, and data that ends with it.
  const l1 = Number(peek(at('q'), 40, 8).readBigUInt64BE())
  const entry = peek(at('q'), l1, 8)
  poke(at('q'), l1, entry.readBigUInt64BE() + 512n)
  t.equal((await ours(['compare', 'raw', 'q'], dir)).status, 3)
  poke(at('q'), l1, entry)
  truncateSync(at('q'), sizeOf(at('q')) - 65536)
  const cut = await runCli(['compare', 'raw', 'q'], { cwd: dir })
  t.equal(cut.status, 4, cut.stderr)
})
