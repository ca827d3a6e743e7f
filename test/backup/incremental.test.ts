import t from 'tap'
import { randomChanges } from '../support/changes.ts'
import { effort, someOf } from '../support/effort.ts'
import { History } from '../support/history.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

const KIB = 2 ** 10
const MIB = 2 ** 20
/** Increments of a case. */
const ROUNDS = effort(2, 3)
const CLUSTER_SIZES = [4 * KIB, 64 * KIB, 2 * MIB]

t.test('what a trim leaves: data that became zero, zero that became data', async (t) => {
  const cases: [name: string, before: string[], after: string[]][] = [
    ['data overwritten by zeroes', ['write -P 1 0 1M'], ['write -P 0 128k 256k']],
    ['data zeroed', ['write -P 1 0 1M'], ['write -z 128k 256k']],
    ['data discarded', ['write -P 1 0 1M'], ['discard 128k 256k']],
    ['zeroes overwritten by data', ['write -z 0 1M'], ['write -P 2 128k 256k']],
    ['a hole overwritten by data', [], ['write -P 2 128k 256k']],
    ['half a granule zeroed', ['write -P 1 0 1M'], ['write -z 160k 32k', 'write -z 544k 32k']],
    ['half a granule written', ['write -z 0 1M'], ['write -P 2 160k 32k', 'write -P 3 544k 512']],
    ['half a cluster trimmed', ['write -P 1 0 1M'], ['discard 130k 61k', 'write -P 3 129k 1k']],
    ['the last sectors zeroed', ['write -P 1 0 1049088'], ['write -z 1047552 1536']],
    ['the last sectors written', [], ['write -P 9 1048576 512']],
    ['everything zeroed', ['write -P 1 0 1049088'], ['write -z -u 0 1049088']],
    ['everything written', [], ['write -P 1 0 1049088']],
    ['zeroed, then written in part', ['write -P 1 0 1M'], ['write -z 0 1M', 'write -P 4 300k 3k']],
    ['written, then zeroed', [], ['write -P 4 300k 30k', 'write -z 300k 30k']],
    ['nothing', ['write -P 1 0 1M'], []],
  ]
  for (const [i, [name, before, after]] of cases.entries()) {
    await t.test(name, async (t) => {
      for (const clusterSize of someOf(CLUSTER_SIZES, i)) {
        const history = new History(t, MIB + 512, 64 * KIB, { clusterSize })
        if (before.length > 0) history.change(...before)
        await history.point()
        if (after.length > 0) history.change(...after)
        const result = await history.point()
        if (name === 'nothing') t.equal(result.unchangedBytes, MIB + 512)
        if (name === 'everything zeroed') t.equal(result.zeroBytes, MIB + 512)
        await history.restoreAll()
      }
    })
  }
})

t.test('zeroes are recorded by flags alone', async (t) => {
  const history = new History(t, 64 * MIB, 64 * KIB)
  history.change('write -P 1 0 32M')
  await history.point()
  history.change('write -z -u 0 16M', 'discard 16M 8M')
  const result = await history.point()
  t.match(result, { dataBytes: 0, zeroBytes: 24 * MIB, unchangedBytes: 40 * MIB })
  t.ok(result.fileSize < 400 * KIB, `${result.fileSize} bytes`)
  await history.restoreAll()
})

t.test('an increment of a disk that was resized holds the new disk', async (t) => {
  const steps: [name: string, sizes: number[]][] = [
    ['grown', [3 * MIB + 512, 5 * MIB]],
    ['grown within a cluster', [3 * MIB + 512, 3 * MIB + 1024]],
    ['shrunk', [5 * MIB, 3 * MIB + 512]],
    ['shrunk, then grown over what was cut off', [6 * MIB, 3 * MIB + 512, 6 * MIB]],
    ['grown, shrunk and grown', [2 * MIB, 5 * MIB, 2 * MIB + 4096, 9 * MIB]],
  ]
  for (const [i, [name, sizes]] of steps.entries()) {
    await t.test(name, async (t) => {
      for (const clusterSize of someOf(CLUSTER_SIZES, i)) {
        const history = new History(t, sizes[0], 64 * KIB, { clusterSize })
        for (const size of sizes) {
          history.resize(size)
          history.change(`write -P ${1 + (size % 250)} ${size - 700 * KIB} 600k`)
          await history.point()
        }
        await history.restoreAll()
      }
    })
  }
})

t.test('an increment of a disk that only grew reads as zero at its end', async (t) => {
  const history = new History(t, 3 * MIB + 512, 64 * KIB)
  history.change('write -P 1 0 3146240')
  await history.point()
  history.resize(10 * MIB)
  await history.point()
  await history.restoreAll()
})

t.test('an increment reads the clusters of any kind of image', async (t) => {
  const size = 8 * MIB
  const kinds = ['extended_l2=on,cluster_size=128k', 'cluster_size=512', 'cluster_size=2M']
  for (const options of kinds) {
    await t.test(options, async (t) => {
      const history = new History(t, size, 64 * KIB)
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, history.disk, String(size))
      for (let round = 0; round < ROUNDS; round++) {
        history.change(...randomChanges(size, 12, round))
        await history.point()
      }
      await history.restoreAll()
    })
  }
  await t.test('over an external data file', async (t) => {
    for (const raw of someOf(['off', 'on'], 1)) {
      const history = new History(t, size, 64 * KIB)
      const data = `data_file=${history.disk}.data,data_file_raw=${raw}`
      qemuImg('create', '-q', '-f', 'qcow2', '-o', data, history.disk, String(size))
      for (let round = 0; round < ROUNDS; round++) {
        history.change(...randomChanges(size, 12, round))
        await history.point()
      }
      await history.restoreAll()
    }
  })
  await t.test('over a backing file of its own', async (t) => {
    const history = new History(t, size, 64 * KIB)
    const base = `${history.disk}.base`
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', base, String(size - 4096))
    qemuIo(base, ...randomChanges(size - 4096, 30, 99))
    const over = ['-b', base, '-F', 'qcow2', history.disk, String(size)]
    qemuImg('create', '-q', '-f', 'qcow2', ...over)
    for (let round = 0; round < ROUNDS; round++) {
      history.change(...randomChanges(size, 12, round))
      await history.point()
    }
    await history.restoreAll()
  })
})

t.test('a compressed increment holds the disk', async (t) => {
  for (const compress of ['zlib', 'zstd'] as const) {
    const history = new History(t, 8 * MIB, 64 * KIB, { compress })
    for (let round = 0; round < ROUNDS; round++) {
      history.change(...randomChanges(8 * MIB, 12, round + 7))
      await history.point()
    }
    await history.restoreAll()
  }
})

t.test('a disabled bitmap is noted in the result', async (t) => {
  const history = new History(t, MIB, 64 * KIB)
  t.notOk('notes' in (await history.point()))
  history.change('write -P 1 0 64k')
  qemuImg('bitmap', '--disable', history.disk, 'since-0')
  const result = await history.point()
  t.match(result.notes, [/^bitmap 'since-0' is disabled: /])
  t.notOk('notes' in (await history.point()))
})
