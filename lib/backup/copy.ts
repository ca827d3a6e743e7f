import { stat } from 'node:fs/promises'
import { copyDisk } from '../copy/job.ts'
import { openTarget, type Target } from '../copy/target.ts'
import { BackupError, ioError } from '../errors.ts'
import { native } from '../native.ts'
import { openSource } from '../source/open.ts'
import type { Source } from '../source/source.ts'
import { formatSize } from '../units.ts'
import { type Backing, requireApart } from './backing.ts'
import { jobOptions } from './options.ts'
import type { CopyOptions, CopyResult, ImageOptions, OpenOptions } from './types.ts'

/**
 * The whole way of a disk into a new file: open, check, copy, publish. `fullBackup`, `restore` and
 * `incrementalBackup` are this with different defaults.
 * @param backing what the target builds on; only what changed is copied then
 */
export async function copyToNew(
  from: string,
  to: string,
  format: 'qcow2' | 'raw',
  options: CopyOptions & OpenOptions & ImageOptions,
  backing?: Backing,
): Promise<CopyResult> {
  const started = performance.now()
  const source = await openSource(from, options)
  try {
    if (backing) requireApart(source, backing)
    const job = jobOptions(format, source.size, options, backing)
    const sources = [...source.files, ...(backing?.files ?? [])]
    const target = await openTarget(to, { force: options.force, sources })
    try {
      const room = target.isDevice ? native().deviceSize(target.handle.fd) : undefined
      if (room !== undefined && format === 'raw') checkRoom(source, target, room)
      const counters = await copyDisk(source, target, job)
      await source.checkUnchanged()
      await target.publish()
      return {
        target: to,
        virtualSize: source.size,
        ...counters,
        ...(room === undefined ? await sizes(to) : { fileSize: room, allocatedBytes: room }),
        elapsedSeconds: (performance.now() - started) / 1000,
        ...notesOf(source),
      }
    } finally {
      await target.discard()
    }
  } finally {
    await source.close()
  }
}

/** What the user must know of the source's bitmap. */
function notesOf(source: Source): Pick<CopyResult, 'notes'> {
  const notes = source.bitmap?.notes ?? []
  return notes.length > 0 ? { notes } : {}
}

/** A device cannot grow: better said before hours of copying than after. */
function checkRoom(source: Source, target: Target, room: number): void {
  if (room >= source.size) return
  throw new BackupError(
    'BAD_TARGET',
    target.path,
    `holds ${formatSize(room)}, the disk needs ${formatSize(source.size)}`,
  )
}

async function sizes(path: string): Promise<Pick<CopyResult, 'fileSize' | 'allocatedBytes'>> {
  try {
    const { size, blocks } = await stat(path)
    return { fileSize: size, allocatedBytes: blocks * 512 }
  } catch (error) {
    throw ioError(path, error)
  }
}
