import { copyFile } from 'node:fs/promises'
import type { Setup } from './cases/case.ts'
import { type Content, mixedContent } from './content.ts'
import { type GranuleWork, granuleCommand, WRITE_IN_ORDER, ZERO_FAST } from './granules.ts'
import { type DataExtent, type ScatteredDisk, scatteredLayout } from './layout.ts'
import { succeed } from './process.ts'
import { seeded, shuffle } from './random.ts'
import { startQemuNbd } from './servers/qemu-nbd.ts'
import type { Stage } from './servers/server.ts'

const MIB = 2 ** 20
const GIB = 2 ** 30

/** Name of the bitmap that each of the disks here has. */
export const BITMAP = 'since'
/** Bytes of the bitmap's granules, and of the images' clusters. */
export const GRANULARITY = 65536

/** A qcow2 disk with a persistent bitmap, and the backup made when the bitmap began. */
export interface ChangedDisk {
  disk: string
  previous: string
}

/** A disk with scattered granules of noise and text, written in random order since the backup. */
export function scatteredChanges(setup: Setup, layout: ScatteredDisk): Promise<ChangedDisk> {
  return changedDisk(setup, 'changed', layout, 64 * MIB, async (disk) => {
    const granules = shuffle(scatteredLayout(layout), seeded(4))
    await change(disk, granules, WRITE_IN_ORDER, setup, mixedContent())
  })
}

/** A disk that was zeroed as a whole since the backup, at the start of which was data. */
export function trimmedDisk(setup: Setup, size: number, written: number): Promise<ChangedDisk> {
  return changedDisk(setup, `trimmed-${size / GIB}g`, { size }, written, async (disk) => {
    const pieces = Array.from({ length: size / GIB }, (_, i) => `write -q -z -u ${i}G 1G`)
    await qemuIo(disk, pieces, setup.signal)
  })
}

/** A disk in which nothing was written since the backup. */
export function cleanDisk(setup: Setup, size: number): Promise<ChangedDisk> {
  return changedDisk(setup, 'clean', { size }, 64 * MIB, async () => {})
}

/** A disk of which every second granule, from the first on, was zeroed since the backup. */
export function alternatingDisk(setup: Setup, dirty: number): Promise<ChangedDisk> {
  const size = 2 * dirty * GRANULARITY
  return changedDisk(setup, 'alternating', { size }, 0, async (disk) => {
    const granules = Array.from({ length: dirty }, (_, i) => ({
      offset: 2 * i * GRANULARITY,
      length: GRANULARITY,
    }))
    await change(disk, granules, ZERO_FAST, setup)
  })
}

/** Changes granules of an image as a guest would: its bitmaps record it. */
export async function change(
  disk: string,
  granules: DataExtent[],
  work: GranuleWork,
  stage: Stage,
  content?: Content,
): Promise<void> {
  const server = await startQemuNbd(disk, stage)
  const command = await granuleCommand(work, server.uri, granules, stage)
  await succeed(command, stage.signal, content && contents(granules, content))
  await server.stop()
}

/** Adds a persistent bitmap to an image; it records from now on. */
export async function addBitmap(image: string, name: string, signal: AbortSignal): Promise<void> {
  await succeed(['qemu-img', 'bitmap', '--add', '-g', `${GRANULARITY}`, image, name], signal)
}

/**
 * @param layout properties that the note records besides the size
 * @param written bytes of data at the disk's start, in the backup too
 */
async function changedDisk(
  { data, signal }: Setup,
  name: string,
  layout: { size: number },
  written: number,
  changes: (disk: string) => Promise<void>,
): Promise<ChangedDisk> {
  const note = { ...layout, written }
  const made = (part: string, make: (path: string) => Promise<void>) =>
    data.made(`${name}-${part}.qcow2`, note, make)
  const previous = await made('before', async (path) => {
    await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', path, `${layout.size}`], signal)
    const pieces = Array.from({ length: Math.ceil(written / GIB) }, (_, i) => {
      return `write -q -P ${1 + i} ${i}G ${Math.min(GIB, written - i * GIB)}`
    })
    await qemuIo(path, pieces, signal)
  })
  const disk = await made('since', async (path) => {
    await copyFile(previous, path)
    await addBitmap(path, BITMAP, signal)
    await changes(path)
  })
  return { disk, previous }
}

async function qemuIo(image: string, commands: string[], signal: AbortSignal): Promise<void> {
  const options = commands.flatMap((command) => ['-c', command])
  await succeed(['qemu-io', '-n', '-f', 'qcow2', '-d', 'unmap', ...options, image], signal)
}

function* contents(granules: DataExtent[], content: Content): Iterable<Buffer> {
  for (const { offset, length } of granules) yield content(offset, length)
}
