import { copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  createSnapshot,
  diffDisks,
  diffToBitmap,
  fullBackup,
  incrementalBackup,
  listBitmaps,
  openSource,
} from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { peek } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20

/** The granules that a bitmap of an image has as dirty. */
async function dirtyGranules(
  image: string,
  bitmap: string,
  granularity: number,
): Promise<number[]> {
  const source = await openSource(image, { bitmap })
  const dirty = new Set<number>()
  for await (const mappings of source.dirtyMappings()) {
    for (const { start, length, dirty: yes } of mappings) {
      if (!yes) continue
      for (let at = start; at < start + length; at += granularity)
        dirty.add(Math.floor(at / granularity))
    }
  }
  await source.close()
  return [...dirty].sort((a, b) => a - b)
}

/** The granules in which two disks differ, what one lacks being zero; of the first's size. */
function differing(a: Buffer, b: Buffer, granularity: number): number[] {
  const other = Buffer.alloc(a.length)
  b.copy(other)
  const found: number[] = []
  for (let at = 0; at < a.length; at += granularity) {
    const end = Math.min(at + granularity, a.length)
    if (!a.subarray(at, end).equals(other.subarray(at, end))) found.push(at / granularity)
  }
  return found
}

function rawOf(image: string, format = 'qcow2'): Buffer {
  qemuImg('convert', '-f', format, '-O', 'raw', image, `${image}.raw`)
  return readFileSync(`${image}.raw`)
}

t.test(
  'random disks and baselines: exactly what differs, and the increment is right',
  async (t) => {
    for (let seed = 0; seed < 10; seed++) {
      await t.test(`seed ${seed}`, async (t) => {
        const random = randomNumbers(seed)
        const at = (name: string) => join(t.testdirName, name)
        t.testdir()
        const cluster = ['512', '4k', '64k', '2M'][random(4)]
        const [size, before] = [8 * MIB + random(3) * 512, 8 * MIB - random(3) * MIB]
        const granularity = 512 * 2 ** random(9)
        makeRaw(at('old.raw'), before, [{ at: random(4) * MIB, bytes: noise(2 * MIB, seed + 1) }])
        qemuImg(
          'convert',
          '-f',
          'raw',
          '-O',
          'qcow2',
          '-o',
          `cluster_size=${cluster}`,
          at('old.raw'),
          at('disk'),
        )
        if (random(2) === 0) {
          qemuImg('create', '-q', '-f', 'qcow2', '-b', 'disk', '-F', 'qcow2', at('top'))
        } else {
          copyFileSync(at('disk'), at('top'))
        }
        qemuImg('resize', '-q', at('top'), String(size))
        // Bytes that stay the same, zeroes over zeroes, and changes.
        for (let i = 0; i < 12; i++) {
          const start = random(before / 512 - 2000) * 512
          const how = ['write -P 7', 'write -z', 'discard', 'write -P 0'][random(4)]
          qemuIo(at('top'), `${how} ${start} ${512 * (1 + random(1500))}`)
        }
        const kinds = ['raw', 'plain', 'compressed'] as const
        const kind = kinds[random(3)]
        const baseline = kind === 'raw' ? at('old.raw') : at('backup')
        if (kind !== 'raw') {
          await fullBackup(at('old.raw'), baseline, kind === 'plain' ? {} : { compress: 'zlib' })
        }
        const result = await diffToBitmap(at('top'), baseline, 'b', { granularity })
        const expected = differing(rawOf(at('top')), readFileSync(at('old.raw')), granularity)
        t.strictSame(await dirtyGranules(at('top'), 'b', granularity), expected)
        t.match(await listBitmaps(at('top')), [{ name: 'b', granularity, recording: false }])
        t.equal(result.dirtyBytes, (await listBitmaps(at('top')))[0].dirtyBytes)
        t.strictSame(result.unreadable, [])
        t.equal(qemuImgCheck(at('top')).status, 0)

        const backingFormat = kind === 'raw' ? 'raw' : undefined
        await incrementalBackup(at('top'), at('inc'), {
          bitmap: 'b',
          backing: baseline,
          backingFormat,
        })
        t.equal(qemuImg('compare', at('inc'), at('top')), 'Images are identical.\n')
      })
    }
  },
)

t.test('when the bitmap is gone: a chain goes on after it', async (t) => {
  const at = (name: string) => join(t.testdirName, name)
  t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', at('disk'), '16M')
  qemuIo(at('disk'), 'write -P 1 0 4M')
  await fullBackup(at('disk'), at('sunday'))
  qemuIo(at('disk'), 'write -P 2 1M 100k', 'write -z 3M 64k')
  const made = await diffToBitmap(at('disk'), at('sunday'), 'sunday', { enable: true })
  t.strictSame(made.granularity, 65536)
  t.match(await listBitmaps(at('disk')), [
    { name: 'sunday', recording: true, dirtyBytes: 3 * 65536 },
  ])
  qemuIo(at('disk'), 'write -P 3 8M 64k')
  await createSnapshot(at('disk'), at('overlay'))
  qemuIo(at('overlay'), 'write -P 4 9M 64k')
  await incrementalBackup(at('overlay'), at('monday'), { bitmap: 'sunday', backing: at('sunday') })
  t.equal(qemuImg('compare', at('monday'), at('overlay')), 'Images are identical.\n')
})

t.test('what is refused leaves the image as it was', async (t) => {
  const at = (name: string) => join(t.testdirName, name)
  t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', at('disk'), '4M')
  qemuImg('bitmap', '--add', at('disk'), 'there')
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M')
  const before = peek(at('disk'), 0, 500_000)
  const refused = async (error: { code: string }, ...args: Parameters<typeof diffToBitmap>) => {
    await t.rejects(diffToBitmap(...args), error)
    t.ok(peek(at('disk'), 0, 500_000).equals(before), error.code)
  }
  await refused({ code: 'BAD_BITMAP' }, at('disk'), at('base'), 'there')
  await refused({ code: 'USAGE' }, at('disk'), at('base'), 'b', {
    granularity: 3,
  })
  await refused({ code: 'USAGE' }, at('disk'), at('base'), '')
  await refused({ code: 'IO' }, at('disk'), at('gone'), 'b')
  await refused({ code: 'IN_USE' }, at('disk'), at('disk'), 'b')
  await refused({ code: 'IO' }, at('disk'), `nbd+unix:///x?socket=${at('gone')}`, 'b')
  const stop = new AbortController()
  stop.abort()
  makeRaw(at('raw'), 4 * MIB, [{ at: 0, bytes: noise(MIB) }])
  await refused({ code: 'ABORTED' }, at('disk'), at('raw'), 'b', { signal: stop.signal })
  await startQemuNbd(t, at('disk'), { writable: true })
  await t.rejects(diffToBitmap(at('disk'), at('base'), 'b'), { code: 'IN_USE' })
})

t.test('options of diffDisks that need each other are refused alone', async (t) => {
  const merging = { mergeInto: 'image' }
  for (const [options, message] of [
    [merging, 'bitmap: missing; it names the bitmap to merge into'],
    [{ ...merging, bitmap: '' }, 'bitmap: missing; it names the bitmap to merge into'],
    [{ bitmap: 'b' }, 'bitmap: there is no image to merge into'],
    [{ force: true }, 'force: there is no output file'],
  ] as const) {
    await t.rejects(diffDisks('disk', 'baseline', options), { code: 'USAGE', message })
  }
})
