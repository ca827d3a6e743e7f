import { type CustomTarget, openCustomTarget } from '../copy/target/custom-target.ts'
import { openNbdTarget } from '../copy/target/nbd-target.ts'
import { argumentError, BackupError } from '../errors.ts'
import { readHeader } from '../format/qcow2/qcow2-image.ts'
import { toOpenFile } from '../image/file.ts'
import { isImageUrl, shownLocation } from '../imageio/client/address.ts'
import { isNbdUri } from '../nbd/uri.ts'
import type { Source, SourceFile } from '../source/source.ts'
import { type Manifest, readManifest } from './manifest.ts'
import { RecordedContent } from './recorded-content.ts'
import { type CopyRequest, runSession } from './session.ts'
import type { CopyResult, Progress, RestoreOptions } from './types.ts'
import { compareContent, compareWithManifest } from './verify-manifests.ts'

/** What is recorded of the content of images. */
export interface ContentRecords {
  /** @returns undefined if there is none of it */
  of(image: string): Promise<Manifest | undefined>
  /** Unless `verify` is false, also the images of a chain are compared, each before it is copied. */
  readonly ofChains: boolean
}

const MANIFESTS: ContentRecords = { of: readManifest, ofChains: false }

/**
 * Writes the content of a backup, with its whole chain, to a new disk. The data read from a single image
 * is compared with the manifest beside it, unless `verify` is false.
 * @param backup path of a qcow2 image. Not recognised by its content: a backup whose first bytes
 * are damaged must not pass for a raw disk; `format: 'raw'` says that it is one
 * @param target path of a new sparse file, a block device, with `outputFormat: 'qcow2'` of a new image, or
 * the URI of an NBD export or the URL of an image of an imageio server, which is overwritten; or a target
 * of the program's own
 * @throws BackupError; an existing target is then unchanged, except one that is written in place
 */
export async function restore(
  backup: string,
  target: string | CustomTarget,
  options: RestoreOptions = {},
): Promise<CopyResult> {
  const { request, noted } = prepareRestore(backup, target, options)
  return noted(await runSession(request))
}

/**
 * The copy that restores a backup: see `restore`.
 * @returns `noted`: adds to the copy's result what was verified
 */
export function prepareRestore(
  backup: string,
  target: string | CustomTarget,
  options: RestoreOptions,
  records: ContentRecords = MANIFESTS,
): { request: CopyRequest; noted(result: CopyResult): CopyResult } {
  const { outputFormat = 'raw', format = 'qcow2', noHole, verify, ...rest } = options
  if (verify && options.snapshot !== undefined) {
    throw argumentError('verify', 'cannot be combined with a snapshot, which no manifest records')
  }
  let notes: string[] = []
  const request: CopyRequest = {
    from: backup,
    to: typeof target === 'string' ? shownLocation(target) : target.name,
    format: outputFormat,
    replaces: 'disk',
    async recorded(source) {
      const { images = [] } = source
      if (verify === false || format !== 'qcow2' || images.length === 0) return undefined
      if (!verify && images.length === 1) return await recordOf(backup, source, records)
      if (verify || records.ofChains) notes = await verifyImages(source, records, options)
      return undefined
    },
    ...targetOf(target, { ...options, format }, rest),
  }
  return {
    request,
    noted(result) {
      if (!verify || format !== 'qcow2') return result
      notes.push(...(result.notes ?? []))
      return { ...result, verified: true, ...(notes.length > 0 && { notes }) }
    },
  }
}

/** How the target is opened. The options for servers are about it, if it is on one. */
function targetOf(
  target: string | CustomTarget,
  { outputFormat = 'raw', format, noHole, requests }: RestoreOptions,
  whole: Omit<RestoreOptions, 'verify' | 'outputFormat' | 'noHole' | 'format'>,
): Pick<CopyRequest, 'options' | 'openTarget'> {
  const { connections, timeoutMs, ca, fingerprint, insecure, ...local } = whole
  const isRemote = typeof target === 'string' && (isNbdUri(target) || isImageUrl(target))
  const rest = isRemote ? local : whole
  if (typeof target !== 'string') {
    if (noHole) throw argumentError('noHole', 'is only supported for NBD exports')
    if (outputFormat !== 'raw') {
      throw argumentError('outputFormat', 'a target of your own takes a raw disk')
    }
    return { options: { ...rest, format }, openTarget: async () => openCustomTarget(target) }
  }
  const isExport = isNbdUri(target)
  if (noHole && !isExport) throw argumentError('noHole', 'is only supported for NBD exports')
  const options = { ...rest, format }
  if (!isRemote) return { options }
  const { signal } = rest
  if (!isExport) {
    if (outputFormat !== 'raw') {
      throw argumentError('outputFormat', 'an imageio server takes a raw disk')
    }
    const asked = { connections, timeoutMs, ca, fingerprint, insecure, signal }
    // With an HTTP client, which other targets need not wait for.
    const openTarget = async () => {
      const { openImageioTarget } = await import('../copy/target/imageio-target.ts')
      return await openImageioTarget(target, asked)
    }
    return { options, openTarget }
  }
  if (outputFormat !== 'raw') throw argumentError('outputFormat', 'an NBD export needs a raw disk')
  for (const [key, value] of Object.entries({ ca, fingerprint, insecure })) {
    if (value !== undefined) throw argumentError(key, 'is only supported for imageio, https://…')
  }
  const asked = { connections, timeoutMs, requests, noHole, signal }
  return { options, openTarget: () => openNbdTarget(target, asked) }
}

/** The record of a backup, if it is a single image and has one. */
async function recordOf(
  path: string,
  source: Source,
  records: ContentRecords,
): Promise<RecordedContent | undefined> {
  const [top] = source.stores as readonly SourceFile[]
  if (source.snapshot) return undefined
  const header = await readHeader(await toOpenFile(path, top.handle))
  if (header.backingFile !== undefined || header.externalDataFile) return undefined
  const record = await records.of(path)
  if (!record) return undefined
  const recorded = new RecordedContent(path, record, header)
  if (recorded.difference === undefined) return recorded
  throw new BackupError('DIFFERENT', path, recorded.difference)
}

/**
 * Compares every image of a chain with its own record: the files that are restored then. With `verify`
 * each is also checked.
 * @returns notes
 * @throws BackupError DIFFERENT, BAD_IMAGE, IO, ABORTED
 */
async function verifyImages(
  { images = [] }: Source,
  records: ContentRecords,
  { verify, signal, onProgress }: RestoreOptions,
): Promise<string[]> {
  const notes: string[] = []
  const whole = images.reduce((sum, { size }) => sum + size, 0)
  let done = 0
  for (const { path, file, header, size } of images) {
    const before = done
    const control = {
      signal,
      onProgress:
        onProgress &&
        ((progress: Progress) =>
          onProgress({ ...progress, position: before + progress.position, size: whole })),
    }
    const record = header && (await records.of(path))
    if (!header) {
      notes.push(`${path}: is raw and has no manifest; its content was not checked`)
    } else if (verify || record) {
      const found = verify
        ? await compareWithManifest(file, path, record, control)
        : await compareContent(file, path, header, record!, control)
      if (found.difference !== undefined) {
        throw new BackupError('DIFFERENT', path, found.difference)
      }
      notes.push(...found.notes)
    }
    done += size
  }
  return notes
}
