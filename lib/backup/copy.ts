import { stat } from 'node:fs/promises'
import { copyDisk } from '../copy/job.ts'
import { openTarget, type Target } from '../copy/target.ts'
import { BackupError, ioError } from '../errors.ts'
import { native } from '../native.ts'
import { openSource } from '../source/open.ts'
import type { Source } from '../source/source.ts'
import { formatSize } from '../units.ts'
import { jobOptions } from './options.ts'
import type { CopyOptions, CopyResult, ImageOptions, OpenOptions } from './types.ts'

/**
 * The whole way of a disk into a new file: open, check, copy, publish. `fullBackup` and `restore`
 * are this with different defaults.
 */
export async function copyToNew(
  from: string,
  to: string,
  format: 'qcow2' | 'raw',
  options: CopyOptions & OpenOptions & ImageOptions,
): Promise<CopyResult> {
  const started = performance.now()
  const source = await openSource(from, options)
  try {
    const job = jobOptions(format, source.size, options)
    const target = await openTarget(to, { force: options.force, sources: source.files })
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
      }
    } finally {
      await target.discard()
    }
  } finally {
    await source.close()
  }
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
