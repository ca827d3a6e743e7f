import { copyFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { BackupError } from '../../../lib/errors.ts'
import { formatSize } from '../../../lib/units.ts'
import { change, GRANULARITY } from '../changed-disks.ts'
import { mixedContent } from '../content.ts'
import { fioCopy, fioRead } from '../fio.ts'
import { granuleCommand, WRITE_IN_ORDER, ZERO_FAST } from '../granules.ts'
import { scatteredLayout } from '../layout.ts'
import { fileKiB, type Limit, peakMemory, wallRatio, wallSeconds } from '../limits.ts'
import { run, succeed } from '../process.ts'
import { seeded, shuffle } from '../random.ts'
import { startRecorder } from '../servers/recorder.ts'
import { fragmentation, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { describe } from './full.ts'

const KIB = 1024
const MIB = 1024 * KIB
const GIB = 1024 * MIB
const TIB = 1024 * GIB

export const commit: PerfCase = {
  name: 'commit',
  title: 'Commit of scattered changes into the image below',
  async prepare(setup) {
    const { data, scratch, signal } = setup
    const { overlay } = data.disks
    const base = await data.mixedQcow2()
    const top = join(scratch, 'top.qcow2')
    await makeOverlay(base, top, signal)
    const blocks = shuffle(scatteredLayout(overlay, 30), seeded(31))
    await change(top, blocks, WRITE_IN_ORDER, setup, mixedContent())
    const words = `${describe(data.disks.mixed)}; above it ${overlay.blocks} scattered changes of ${formatSize(overlay.blockSize)}`
    return {
      ...planCommit(setup, words, { base, top }, [wallRatio(0.8)]),
      limit: await fioCopy(top, signal, true),
    }
  },
}

export const commitWiped: PerfCase = {
  name: 'commit-wiped',
  title: 'Commit of a disk that was wiped into the image below',
  async prepare(setup) {
    const { scratch, signal } = setup
    const base = join(scratch, 'before.qcow2')
    const top = join(scratch, 'top.qcow2')
    await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', base, `${TIB}`], signal)
    await qemuIo(base, ['write -q 0 1G'], signal)
    await makeOverlay(base, top, signal)
    const wiped = Array.from({ length: TIB / GIB }, (_, i) => `write -q -z ${i}G 1G`)
    await qemuIo(top, wiped, signal)
    const most = (await stat(base)).size / KIB + 1024
    return planCommit(setup, 'a disk of 1 TiB, 1 GiB of it data', { base, top }, [
      wallSeconds(1),
      fileKiB(most),
    ])
  },
}

/** The top is rebased to its commit target each time: neither side changes it. */
function planCommit(
  { ours, signal }: Setup,
  disk: string,
  { base, top }: { base: string; top: string },
  limits: Limit[],
): Plan {
  const rebase = async (to: string) => {
    await succeed(['qemu-img', 'rebase', '-q', '-u', '-b', to, '-F', 'qcow2', top], signal)
  }
  return {
    disk,
    sources: [top],
    format: 'raw',
    async before(target) {
      await copyFile(base, target)
      await rebase(target)
    },
    ours: () => [...ours, 'commit', top, '--json', '--no-progress', '--allow-path', '/'],
    // Emptying the top is not part of the work.
    peer: () => ['qemu-img', 'commit', '-q', '-d', top],
    async verify(target) {
      await fragmentation(target, signal)
      await rebase(base)
      await requireSame({ path: top, format: 'qcow2' }, { path: target, format: 'qcow2' }, signal)
    },
    limits,
  }
}

export const diff: PerfCase = {
  name: 'diff',
  title: 'Finding out what of a disk differs from its backup, beside a comparison of equal ones',
  async prepare(setup) {
    const { ours, data, scratch, signal } = setup
    const { differing } = data.disks
    const known = await data.mixedQcow2()
    const same = join(scratch, 'same.qcow2')
    await succeed([...ours, 'full', known, same, '--no-progress'], signal)
    const changed = join(scratch, 'changed.qcow2')
    await copyFile(same, changed)
    const granules = scatteredLayout(differing, 32)
    await change(changed, granules, WRITE_IN_ORDER, setup, mixedContent())
    const limit = await fioRead([changed, known], signal)
    const words = ['diff', changed, known, '--bitmap', 'found', '--allow-path', '/']
    return {
      disk: `${describe(data.disks.mixed)}; ${differing.blocks} granules of ${formatSize(differing.blockSize)} differ`,
      sources: [changed, known, same],
      format: 'raw',
      async before() {
        // Nothing of the run before; the first time there is none.
        await run(['qemu-img', 'bitmap', '--remove', changed, 'found'], signal)
      },
      ours: () => [...ours, ...words, '--json', '--no-progress'],
      peer: () => ['qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', '-T', 'none', known, same],
      limit: () => limit,
      async verify() {
        await fragmentation(changed, signal)
        const { stdout } = await succeed([...ours, 'bitmap', 'list', '--json', changed], signal)
        const [{ dirtyBytes }] = JSON.parse(stdout)
        if (dirtyBytes === differing.blocks * differing.blockSize) return
        throw new BackupError('DIFFERENT', changed, `${dirtyBytes} bytes are found to differ`)
      },
      limits: [wallRatio(0.8)],
    }
  },
}

export const bitmapMerge: PerfCase = {
  name: 'bitmap-merge',
  title: 'Merging many bitmaps of a huge disk',
  async prepare(setup) {
    const { ours, data, signal } = setup
    const { size, bitmaps } = data.disks.manyBitmaps
    const image = await manyBitmaps(setup)
    const names = Array.from({ length: bitmaps }, (_, i) => `b${i}`)
    const merges = names.flatMap((name) => ['--merge', name])
    return {
      disk: `${formatSize(size)}, ${bitmaps} bitmaps of ${formatSize(GRANULARITY)} a bit`,
      sources: [],
      format: 'raw',
      before: (target) => copyFile(image, target),
      ours: (target) => [...ours, 'bitmap', '--add', ...merges, target, 'all'],
      peer: (target) => ['qemu-img', 'bitmap', '--add', ...merges, target, 'all'],
      async verify(target) {
        await fragmentation(target, signal)
        const theirs = join(dirname(target), 'theirs.qcow2')
        await copyFile(image, theirs)
        await succeed(['qemu-img', 'bitmap', '--add', ...merges, theirs, 'all'], signal)
        const shown = async (of: string) => {
          return (await succeed([...ours, 'bitmap', 'show', of, 'all'], signal)).stdout
        }
        if ((await shown(target)) === (await shown(theirs))) return
        throw new BackupError('DIFFERENT', target, 'has not the bits that qemu-img merges')
      },
      limits: [wallRatio(0.5), peakMemory(400)],
    }
  },
}

/** Places all over the disk that each bitmap has as dirty, and granules in each. */
const PLACES = 100
const GRANULES = 20

/** Each bitmap has the ranges that were zeroed while it recorded. */
function manyBitmaps(setup: Setup): Promise<string> {
  const { data, signal } = setup
  const { size, bitmaps } = data.disks.manyBitmaps
  return data.made('bitmaps.qcow2', { size, bitmaps }, async (path) => {
    await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', path, `${size}`], signal)
    const recorder = await startRecorder(path, setup)
    const random = seeded(33)
    for (let i = 0; i < bitmaps; i++) {
      await recorder.add(`b${i}`, GRANULARITY)
      const granules = Array.from({ length: PLACES }, () => {
        const first = Math.floor(random() * (size / GRANULARITY - GRANULES))
        return Array.from({ length: GRANULES }, (_, n) => (first + n) * GRANULARITY)
      }).flat()
      const areas = granules.map((offset) => ({ offset, length: GRANULARITY }))
      await succeed(await granuleCommand(ZERO_FAST, recorder.uri, areas, setup), signal)
      await recorder.disable(`b${i}`)
    }
    await recorder.stop()
  })
}

async function makeOverlay(base: string, top: string, signal: AbortSignal): Promise<void> {
  await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, top], signal)
}

async function qemuIo(image: string, commands: string[], signal: AbortSignal): Promise<void> {
  const options = commands.flatMap((command) => ['-c', command])
  await succeed(['qemu-io', '-n', '-f', 'qcow2', ...options, image], signal)
}
