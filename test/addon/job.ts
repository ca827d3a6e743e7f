/** Jobs of the addon by themselves, below everything that lib/copy makes of them. */
import { constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { type CopyJob, type CopySpec, type NativeTarget, native } from '../../lib/native.ts'
import { COLUMNS, ROW } from '../../lib/plan/rows.ts'
import { makeRaw, noise } from '../support/disks.ts'

const MIB = 2 ** 20
/** Bytes of the disk that jobs copy. */
export const SIZE = 16 * MIB

/** Linux's, as lib/copy/target/temporary-file.ts has it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

/** Makes the disk that jobs copy. */
export function makeDisk(directory: string): string {
  return makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes: noise(SIZE) }])
}

/** A target that is an image. */
type ImageTarget = Extract<NativeTarget, { kind: 'qcow2' }>

/** What copies the disk in a directory to a file without a name there. */
export function specOf(directory: string, changes: Partial<CopySpec> = {}): CopySpec {
  return {
    sources: [{ kind: 'file', fd: openSync(join(directory, 'disk.raw'), 'r'), size: SIZE }],
    target: imageAt(unnamedFile(directory)),
    size: SIZE,
    engine: 'auto',
    direct: 'auto',
    requests: 4,
    memory: 16 * MIB,
    hash: false,
    holdFailures: false,
    ...changes,
  }
}

/** Opens a new file without a name. */
export function unnamedFile(directory: string): number {
  return openSync(directory, constants.O_RDWR | O_TMPFILE, 0o600)
}

/** An image in an open file. */
export function imageAt(fd: number): ImageTarget {
  return { kind: 'qcow2', store: { kind: 'file', fd }, clusterBits: 16, sharedTables: true }
}

/** The plan: the whole disk, in rows of a MiB. */
export function allRows(): Float64Array {
  const rows = new Float64Array((SIZE / MIB) * COLUMNS)
  for (let i = 0; i < SIZE / MIB; i++) {
    rows.set([ROW.data, i * MIB, MIB, 0, i * MIB, 0, 0, 0], i * COLUMNS)
  }
  return rows
}

/** Waits until a job has settled some of the disk. */
export async function untilCopying(job: CopyJob): Promise<void> {
  const numbers = new Float64Array(5)
  while (numbers[0] === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    native().copyProgress(job, numbers)
  }
}
