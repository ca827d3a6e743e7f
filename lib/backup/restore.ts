import { type CustomTarget, openCustomTarget } from '../copy/target/custom-target.ts'
import { openNbdTarget } from '../copy/target/nbd-target.ts'
import { argumentError, BackupError } from '../errors.ts'
import { readHeader } from '../format/qcow2/qcow2-image.ts'
import { type OpenFile, toOpenFile } from '../image/file.ts'
import { isNbdUri } from '../nbd/uri.ts'
import type { Source, SourceFile } from '../source/source.ts'
import { readManifest } from './manifest.ts'
import { RecordedContent } from './recorded-content.ts'
import { type CopyRequest, runSession } from './session.ts'
import type { CopyResult, RestoreOptions } from './types.ts'
import { compareWithManifest } from './verify-manifests.ts'

/**
 * Writes the content of a backup, with its whole chain, to a new disk. The data read from a single image
 * is compared with the manifest beside it, unless `verify` is false.
 * @param backup path of a qcow2 image. Not recognised by its content: a backup whose first bytes
 * are damaged must not pass for a raw disk; `format: 'raw'` says that it is one
 * @param target path of a new sparse file, a block device, with `outputFormat: 'qcow2'` of a new image, or
 * the URI of an NBD export, which is overwritten; or a target of the program's own
 * @throws BackupError; an existing target is then unchanged, except a device, an export or a custom target
 */
export async function restore(
  backup: string,
  target: string | CustomTarget,
  options: RestoreOptions = {},
): Promise<CopyResult> {
  const { outputFormat = 'raw', format = 'qcow2', noHole, verify, ...rest } = options
  if (verify && options.snapshot !== undefined) {
    throw argumentError('verify', 'cannot be combined with a snapshot, which no manifest records')
  }
  let verified: string[] | undefined
  const request = {
    from: backup,
    to: typeof target === 'string' ? target : target.name,
    format: outputFormat,
    replaces: 'disk',
    async recorded(source) {
      if (verify === undefined) return await recordOf(backup, source)
      if (verify && format === 'qcow2') verified = await verifyChain(source, options)
      return undefined
    },
  } satisfies Partial<CopyRequest>
  const result = await runSession({ ...request, ...targetOf(target, { ...options, format }, rest) })
  if (!verified) return result
  const notes = [...verified, ...(result.notes ?? [])]
  return { ...result, verified: true, ...(notes.length > 0 && { notes }) }
}

/** How the target is opened. The options for NBD are about it, if it is an export. */
function targetOf(
  target: string | CustomTarget,
  { outputFormat = 'raw', format, noHole, connections, timeoutMs, requests }: RestoreOptions,
  rest: Omit<RestoreOptions, 'verify' | 'outputFormat' | 'noHole' | 'format'>,
): Pick<CopyRequest, 'options' | 'openTarget'> {
  if (typeof target !== 'string') {
    if (noHole) throw argumentError('noHole', 'is only supported for NBD exports')
    if (outputFormat !== 'raw') {
      throw argumentError('outputFormat', 'a target of your own takes a raw disk')
    }
    return { options: { ...rest, format }, openTarget: async () => openCustomTarget(target) }
  }
  if (!isNbdUri(target)) {
    if (noHole) throw argumentError('noHole', 'is only supported for NBD exports')
    return { options: { ...rest, format } }
  }
  if (outputFormat !== 'raw') throw argumentError('outputFormat', 'an NBD export needs a raw disk')
  const asked = { connections, timeoutMs, requests, noHole, signal: rest.signal }
  return {
    options: { ...rest, format, connections: undefined, timeoutMs: undefined },
    openTarget: () => openNbdTarget(target, asked),
  }
}

/** The record in a backup's manifest, if the backup is a single image and has one. */
async function recordOf(path: string, source: Source): Promise<RecordedContent | undefined> {
  const [top] = source.stores as readonly SourceFile[]
  if (source.format !== 'qcow2' || source.snapshot) return undefined
  const header = await readHeader(await toOpenFile(path, top.handle))
  if (header.backingFile !== undefined || header.externalDataFile) return undefined
  const manifest = await readManifest(path)
  if (!manifest) return undefined
  const recorded = new RecordedContent(path, manifest, header)
  if (recorded.difference === undefined) return recorded
  throw new BackupError('DIFFERENT', path, recorded.difference)
}

/**
 * Verifies every image of a chain against its own manifest: the files that are restored then.
 * @returns notes
 * @throws BackupError DIFFERENT, BAD_IMAGE, IO, ABORTED
 */
async function verifyChain({ images = [] }: Source, options: RestoreOptions): Promise<string[]> {
  const notes: string[] = []
  for (const { path, file, header } of images) {
    notes.push(...(await verifyImage(path, file, options, !header)))
  }
  return notes
}

async function verifyImage(
  path: string,
  file: OpenFile,
  options: RestoreOptions,
  isRaw: boolean,
): Promise<string[]> {
  if (isRaw) return [`${path}: is raw and has no manifest; its content was not checked`]
  const manifest = await readManifest(path)
  const { difference, notes } = await compareWithManifest(file, path, manifest, options)
  if (difference === undefined) return notes
  throw new BackupError('DIFFERENT', path, difference)
}
