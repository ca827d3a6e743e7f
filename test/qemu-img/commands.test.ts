/** Options, ranges, mistakes and messages of the commands, beside those of the installed qemu-img. */
import { copyFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { noise } from '../support/disks.ts'
import { ours, sameAsQemuImg, theirs } from '../support/parity.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

/** Some images, one of each kind that the commands tell apart. */
function images(dir: string): void {
  const at = (name: string) => join(dir, name)
  writeFileSync(at('raw'), noise(200_000, 1))
  writeFileSync(at('other'), noise(200_000, 2))
  writeFileSync(at('longer'), Buffer.concat([noise(200_000, 1), Buffer.alloc(100_000)]))
  writeFileSync(at('longer-data'), Buffer.concat([noise(200_000, 1), Buffer.alloc(100_000, 7)]))
  writeFileSync(at('empty'), '')
  truncateSync(at('empty'), 0)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at('raw'), at('q'))
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', '-c', at('raw'), at('compressed'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'q', '-F', 'qcow2', at('overlay'), '300K')
  qemuIo({ path: at('overlay'), format: 'qcow2' }, 'write -P 9 64k 1k', 'write -z 128k 64k')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'gone', '-F', 'raw', '-u', at('orphan'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', at('snapshots'), '1M')
  qemuImg('snapshot', '-c', 'one', at('snapshots'))
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', at('raw'), at('broken'))
  // The L2 table is where nothing can be.
  poke(at('broken'), 196608, 0x80000000)
  poke(at('broken'), 196612, 0x00000200)
  mkdirSync(at('directory'))
}

const INFO = [
  ['q'],
  ['--output=json', 'q'],
  ['-f', 'raw', 'q'],
  ['-f', 'raw', '--output', 'json', 'raw'],
  ['raw'],
  ['empty'],
  ['--backing-chain', 'overlay'],
  ['--backing-chain', '--output=json', 'overlay'],
  ['--backing-chain', 'orphan'],
  ['orphan'],
  ['snapshots'],
  ['--output=json', 'snapshots'],
  ['nothing'],
  ['directory'],
  ['-f', 'qcow2', 'raw'],
  ['-f', 'nonsense', 'raw'],
  ['--output=xml', 'q'],
  ['--outp=json', 'q'],
  ['q', 'raw'],
  [],
  ['--nonsense'],
  ['-f'],
  ['file:q'],
  ['-U', 'q'],
]

const MAP = [
  ['q'],
  ['--output=json', 'q'],
  ['overlay'],
  ['--output=json', 'overlay'],
  ['--output=json', '-s', '64K', 'overlay'],
  ['--output=json', '-s', '64k', '-l', '1', 'overlay'],
  ['--output=json', '-l', '0', 'overlay'],
  ['--output=json', '-s', '10M', 'overlay'],
  ['--start-offset=1000', '--max-length', '100000', '--output=json', 'overlay'],
  ['-s', 'x', 'overlay'],
  ['-l', '-1', 'overlay'],
  ['-s', '99999999999999999999', 'overlay'],
  ['compressed'],
  ['--output=json', 'compressed'],
  ['--output=json', 'raw'],
  ['--output=json', 'empty'],
  ['empty'],
  ['--output=json', 'broken'],
  ['broken'],
  ['orphan'],
  ['nothing'],
  [],
  ['q', 'q'],
]

const COMPARE = [
  ['raw', 'q'],
  ['q', 'raw'],
  ['raw', 'compressed'],
  ['q', 'compressed'],
  ['raw', 'other'],
  ['q', 'overlay'],
  ['raw', 'longer'],
  ['longer', 'raw'],
  ['raw', 'longer-data'],
  ['longer-data', 'q'],
  ['-s', 'raw', 'longer'],
  ['-s', 'raw', 'q'],
  ['-s', 'q', 'q'],
  ['-s', 'raw', 'other'],
  ['-q', 'raw', 'other'],
  ['-q', 'raw', 'longer'],
  ['-p', 'raw', 'q'],
  ['-p', 'raw', 'other'],
  ['-f', 'raw', '-F', 'qcow2', 'raw', 'q'],
  ['-f', 'qcow2', 'raw', 'q'],
  ['-T', 'none', 'raw', 'q'],
  ['-T', 'writeback', 'raw', 'q'],
  ['-T', 'fast', 'raw', 'q'],
  ['raw', 'broken'],
  ['broken', 'raw'],
  ['empty', 'empty'],
  ['empty', 'raw'],
  ['raw', 'nothing'],
  ['nothing', 'raw'],
  ['orphan', 'raw'],
  ['raw'],
  [],
  ['a', 'b', 'c'],
]

const MEASURE = [
  ['raw'],
  ['-O', 'qcow2', 'raw'],
  ['-O', 'qcow2', 'q'],
  ['-O', 'qcow2', '--output=json', 'overlay'],
  ['-O', 'raw', 'overlay'],
  ['-O', 'qcow2', 'compressed'],
  ['-O', 'qcow2', 'snapshots'],
  ['-O', 'qcow2', '-l', 'one', 'snapshots'],
  ['-O', 'qcow2', '-l', 'snapshot.name=one', 'snapshots'],
  ['-O', 'qcow2', '-l', 'two', 'snapshots'],
  ['-O', 'qcow2', '-l', 'one', 'raw'],
  ['-O', 'qcow2', 'broken'],
  ['--size', '1G'],
  ['--size', '1T', '-O', 'qcow2'],
  ['--size=1T', '-O', 'qcow2', '-o', 'cluster_size=2M,extended_l2=on'],
  ['--size', '128G', '-O', 'qcow2', '-o', 'cluster_size=512'],
  ['--size', '8E', '-O', 'qcow2'],
  ['--size', '63P', '-O', 'qcow2', '-o', 'cluster_size=2M'],
  ['--size', '1.5G', '-O', 'qcow2', '--output=json'],
  ['--size', '-1'],
  ['--size', 'x'],
  ['--size', '1G', 'raw'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'preallocation=full'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'preallocation=some'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'compat=0.10'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'compat=0.10,refcount_bits=1'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'refcount_bits=1'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'refcount_bits=3'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'cluster_size=1000'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'extended_l2=on,cluster_size=4096'],
  ['--size', '1G', '-O', 'qcow2', '-o', 'nonsense=1'],
  ['--size', '1G', '-O', 'qcow2', '-o', ''],
  ['--size', '1G', '-O', 'qcow2', '-o', 'backing_file=x,backing_fmt=raw'],
  ['--size', '1G', '-O', 'nonsense'],
  ['--size', '1G', '-O', 'vmdk'],
  ['-O', 'qcow2', 'nothing'],
  ['-O', 'qcow2', 'orphan'],
  [],
  ['a', 'b'],
]

const CHECK = [
  ['q'],
  ['--output=json', 'q'],
  ['-q', 'q'],
  ['overlay'],
  ['compressed'],
  ['snapshots'],
  ['broken'],
  ['--output=json', 'broken'],
  ['-q', 'broken'],
  ['-f', 'qcow2', 'q'],
  ['-f', 'raw', 'q'],
  ['raw'],
  ['-f', 'qcow2', 'raw'],
  ['orphan'],
  ['nothing'],
  [],
  ['q', 'q'],
]

const ALL = { info: INFO, map: MAP, compare: COMPARE, measure: MEASURE, check: CHECK }

for (const [command, cases] of Object.entries(ALL)) {
  t.test(command, async (t) => {
    const dir = t.testdir()
    images(dir)
    for (const args of cases) await sameAsQemuImg(t, dir, [command, ...args])
  })
}

t.test('check: a file that ends inside an entry of the refcount table', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'image')
  // Clusters of 128 KiB: the offset of the first block ends in two bytes of zero.
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=128k', path, '1M')
  const table = Number(peek64(path, 48))
  const block = peek64(path, table)
  const moved = 1024 * 1024
  poke(path, moved, block)
  poke(path, 48, BigInt(moved))
  truncateSync(path, moved + 6)
  await sameAsQemuImg(t, dir, ['check', 'image'])
  await sameAsQemuImg(t, dir, ['info', 'image'])
})

t.test(
  'a corrupt L2 entry is named by its index in what QEMU reads of a table at once',
  async (t) => {
    const dir = t.testdir()
    const path = join(dir, 'image')
    // Of the small disk all tables are kept, so that they are read whole.
    for (const size of ['1G', '600G']) {
      for (const clusterSize of [512, 65536, 131072, 2 ** 21]) {
        if (clusterSize === 512 && size !== '1G') continue
        const options = `cluster_size=${clusterSize}`
        qemuImg('create', '-q', '-f', 'qcow2', '-o', options, path, size)
        const index = Math.floor((clusterSize / 8) * 0.78) % (2 ** 30 / clusterSize)
        qemuIo({ path, format: 'qcow2' }, `write ${index * clusterSize} 512`)
        const table = Number(peek64(path, Number(peek64(path, 40))) & 0x00fffffffffffe00n)
        for (const entry of [(1n << 63n) | 0x200n, (1n << 62n) | (1n << 63n) | 0x201n]) {
          poke(path, table + index * 8, entry)
          await sameAsQemuImg(t, dir, ['map', 'image'], `${clusterSize} of ${size}, ${entry}`)
        }
      }
    }
  },
)

t.test('a method of encryption that no number with a sign holds', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'image')
  qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  poke(path, 32, 0xfffffffe)
  for (const command of ['info', 'check', 'map']) await sameAsQemuImg(t, dir, [command, 'image'])
})

t.test(
  'a data file is looked for beside its image, with a warning where QEMU takes another',
  async (t) => {
    const dir = t.testdir({ images: {} })
    // The name as it is written by whoever runs qemu-img where the image is.
    theirs(['create', '-f', 'qcow2', '-o', 'data_file=data', 'q', '1M'], join(dir, 'images'))
    copyFileSync(join(dir, 'images/data'), join(dir, 'data'))
    const { status, stderr } = await ours(['map', 'images/q'], dir)
    t.equal(status, 0)
    t.equal(stderr, "qemu-img: warning: data file 'images/data' is used, where QEMU uses 'data'\n")
    rmSync(join(dir, 'data'))
    t.match(await ours(['map', 'images/q'], dir), { status: 0, stderr: '' })
    t.equal(theirs(['map', 'images/q'], dir).status, 1)
  },
)

t.test('a refcount block far behind all files, whose offset a double cannot hold', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'image')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', path, '64M')
  poke(path, Number(peek64(path, 48)), 0x8000000000e00200n)
  await sameAsQemuImg(t, dir, ['check', 'image'])
  await sameAsQemuImg(t, dir, ['map', 'image'])
  await sameAsQemuImg(t, dir, ['map', '--output=json', 'image'])
})
