/**
 * An image and its manifest are two files, and no system call renames two. So that there is never an
 * image beside the manifest of another one, however a run ends:
 *
 * 1. A manifest for both gets the name: it describes the new image and, as `otherwise`, the content of
 *    the old manifest. It is valid beside either image.
 * 2. The image gets its name.
 * 3. The manifest for the new image alone takes the place of the one for both.
 *
 * An image that is replaced by one without a manifest loses its own in the same way; in 3 it is
 * removed. If 1 or 2 fails, the old files are restored; if 3 does, the one for both stays, and
 * is valid. Killed at any point, the result is the old or the new image beside a manifest of it.
 */
import { type FileTarget, openFileTarget } from '../copy/target/file-target.ts'
import { type ExistingTarget, judge, type SourceIdentity } from '../copy/target/judge.ts'
import { locate, pathIn } from '../copy/target/location.ts'
import type { Publication, Target } from '../copy/target/target.ts'
import { TemporaryFile } from '../copy/target/temporary-file.ts'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { type FileHandle, lstat, unlink } from '../files.ts'
import { identityOf } from '../image/file.ts'
import { findManifest, MAX_BYTES, type Manifest, manifestPath, recordsOf } from './manifest.ts'

/** A manifest that is published in front of its image, or one that is removed with the old image. */
export interface ManifestPublication extends Publication {
  /**
   * Its new content; undefined: it is removed.
   * @throws BackupError IO
   */
  write(manifest: Manifest | undefined): Promise<void>
  /** As that of a Target. */
  located(): Promise<string>
}

interface ManifestRequest {
  /** The new image is to have a manifest. */
  wanted: boolean
  force: boolean
  sources: readonly SourceIdentity[]
}

/**
 * Prepares writing or removing the manifest beside a target.
 * @returns undefined if there is none and none is wanted
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IO; USAGE if one is requested for a target that is not a file
 */
export async function openManifest(
  image: Target,
  { wanted, force, sources }: ManifestRequest,
): Promise<ManifestPublication | undefined> {
  if (image.kind !== 'file') {
    if (wanted) throw argumentError('manifest', 'needs a target that is a regular file')
    return undefined
  }
  const path = manifestPath(image.path)
  const location = await locate(path)
  let standing: ExistingTarget | undefined
  try {
    const found = await findManifest(path, pathIn(location)).catch((error: BackupError) => error)
    const old = found instanceof BackupError ? found : found?.manifest
    // A file that is not our manifest must not be replaced.
    if (!wanted && (old === undefined || old instanceof BackupError)) {
      await location.directory.close()
      return undefined
    }
    if (!wanted && !force) {
      const why = 'is the manifest of another image'
      throw new BackupError('TARGET_EXISTS', path, why, { hint: 'force' })
    }
    standing = await judge(location, { force, replaces: 'text', sources })
    if (!(found instanceof BackupError) && found?.identity !== standing?.identity) {
      throw new BackupError('TARGET_EXISTS', path, 'was replaced by another process meanwhile')
    }
    const target = await openFileTarget(location, standing)
    const before = old === undefined || old instanceof BackupError ? [null] : recordsOf(old)
    return new ManifestFile(target, location, image.replaced === undefined ? [] : before)
  } catch (error) {
    await standing?.handle?.close()
    await location.directory.close()
    throw error
  }
}

class ManifestFile implements ManifestPublication {
  readonly path: string
  readonly replaced: string | undefined
  readonly #target: FileTarget
  readonly #location: Parameters<typeof pathIn>[0]
  /** Records of the image that is replaced; empty if there is none. */
  readonly #before: readonly (Manifest | null)[]
  #manifest: Manifest | undefined

  constructor(
    target: FileTarget,
    location: Parameters<typeof pathIn>[0],
    before: readonly (Manifest | null)[],
  ) {
    this.path = target.path
    this.replaced = target.replaced
    this.#target = target
    this.#location = location
    this.#before = before
  }

  async write(manifest: Manifest | undefined): Promise<void> {
    this.#manifest = manifest
    const [first, ...others] = manifest ? [manifest, ...this.#before] : [...this.#before, null]
    const both = others.length > 0 ? { ...first, otherwise: others } : first
    await this.#fill(this.#target.handle, both as Manifest | null)
  }

  located(): Promise<string> {
    return this.#target.located()
  }

  sync(): Promise<void> {
    return this.#target.sync()
  }

  place(): Promise<void> {
    return this.#target.place()
  }

  settle(): Promise<void> {
    return this.#target.settle()
  }

  revert(): Promise<string | undefined> {
    return this.#target.revert()
  }

  async finish(): Promise<string | undefined> {
    const left = await this.#target.finish()
    try {
      if (this.#manifest === undefined) await this.#remove()
      else if (this.#before.length > 0) await this.#replace(this.#manifest)
      return left
    } catch (error) {
      const { why } = ioError(this.path, error)
      const also = `${this.path} still says also what the image before held: ${why}`
      return left === undefined ? also : `${left}; ${also}`
    }
  }

  discard(): Promise<void> {
    return this.#target.discard()
  }

  /** @param manifest null where nothing is known of any image */
  async #fill(handle: FileHandle, manifest: Manifest | null): Promise<void> {
    const text = `${JSON.stringify(manifest, null, 2)}\n`
    if (Buffer.byteLength(text) > MAX_BYTES) {
      const why = 'contains leftovers of killed runs; remove it'
      throw new BackupError('BAD_MANIFEST', this.path, why)
    }
    try {
      await handle.writeFile(text)
    } catch (error) {
      throw ioError(this.path, error)
    }
  }

  async #replace(manifest: Manifest): Promise<void> {
    const file = await TemporaryFile.in(this.#location)
    try {
      await this.#fill(file.handle, manifest)
      await file.handle.sync()
      await file.place(await this.#identity())
      await file.removeOld()
      await this.#target.settle()
    } finally {
      await file.discard()
    }
  }

  async #remove(): Promise<void> {
    const path = pathIn(this.#location)
    if (identityOf(await lstat(path)) !== (await this.#identity())) return
    await unlink(path)
    await this.#target.settle()
  }

  /** Identity of the manifest for both. */
  async #identity(): Promise<string> {
    return identityOf(await this.#target.handle.stat({ bigint: true }))
  }
}
