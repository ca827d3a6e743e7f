import { Discarding } from '../copy/discard.ts'
import { copyDisk } from '../copy/job.ts'
import { openTarget, type Target } from '../copy/target.ts'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { stat } from '../files.ts'
import type { CustomSource } from '../source/custom.ts'
import { openSource } from '../source/open.ts'
import type { Source } from '../source/source.ts'
import { formatSize } from '../units.ts'
import { type Backing, requireApart } from './backing.ts'
import { contentOf } from './content.ts'
import { type ManifestFile, openManifest } from './manifest.ts'
import { discardGranule, jobOptions } from './options.ts'
import type {
  CopyOptions,
  CopyResult,
  DiscardOptions,
  ImageOptions,
  OpenOptions,
  VerifyingOptions,
} from './types.ts'
import { verifyWritten } from './verify-content.ts'

/**
 * The whole way of a disk into a new file: open, check, copy, publish. `fullBackup`, `restore` and
 * `incrementalBackup` are this with different defaults.
 * @param backing what the target builds on; only what changed is copied then
 * @param open how the target is opened
 */
export async function copyToNew(
  from: string | CustomSource,
  to: string,
  format: 'qcow2' | 'raw',
  options: CopyOptions & OpenOptions & ImageOptions & DiscardOptions & VerifyingOptions,
  backing?: Backing,
  open: typeof openTarget = openTarget,
): Promise<CopyResult> {
  const started = performance.now()
  const source = await openSource(from, options)
  try {
    if (backing) requireApart(source, backing)
    const job = jobOptions(format, source.size, options, backing)
    const discarding = discardingOf(source, options)
    const sources = [...source.files, ...(backing?.files ?? [])]
    const target = await open(to, { force: options.force, sources })
    let manifest: ManifestFile | undefined
    try {
      if (options.manifest) manifest = await openManifest(target, options.force, sources)
      const { room } = target
      if (room !== undefined && format === 'raw') checkRoom(source, target, room)
      const { checksum, ...counters } = await copyDisk(source, target, job, discarding)
      await source.checkUnchanged()
      await backing?.checkUnchanged()
      const written = { virtualSize: source.size, ...counters, ...contentOf(checksum) }
      if (options.verify) await verifyWritten(target, written, job)
      await manifest?.write(written, backing?.name)
      await target.publish()
      await manifest?.publish()
      await discarding?.finish()
      return {
        target: to,
        ...written,
        ...(room === undefined ? await sizes(to) : { fileSize: room, allocatedBytes: room }),
        elapsedSeconds: (performance.now() - started) / 1000,
        ...(options.verify && { verified: true }),
        ...(manifest && { manifest: manifest.path }),
        ...notesOf(source, discarding),
      }
    } finally {
      await manifest?.discard()
      await target.discard()
    }
  } finally {
    await source.close()
  }
}

function discardingOf(source: Source, options: DiscardOptions): Discarding | undefined {
  const granule = discardGranule(options)
  if (granule === undefined) return undefined
  if (!source.discarding) {
    throw argumentError('discardAfterCopy', 'goes with NBD exports and custom sources, not files')
  }
  return new Discarding(source.discarding(granule), granule, source.size)
}

/** What the user must know of the source's bitmap, and of what stayed there. */
function notesOf(source: Source, discarding?: Discarding): Pick<CopyResult, 'notes'> {
  const notes = [...(source.bitmap?.notes ?? [])]
  if (discarding?.failure) {
    const { message } = ioError(source.name, discarding.failure)
    notes.push(`the backup is complete, but not all was discarded at the source: ${message}`)
  }
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
    return { fileSize: Number(size), allocatedBytes: Number(blocks) * 512 }
  } catch (error) {
    throw ioError(path, error)
  }
}
