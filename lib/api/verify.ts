import type { ManifestVerdict, VerifyManifestsOptions } from '../backup/verify-manifests.ts'
import { CONTROL_OPTIONS, SHARE_OPTIONS } from '../options.ts'
import { BOOLEAN, checkOptions, option, ownArgument, type SchemaFor } from '../schema.ts'
import { Call } from './call.ts'
import { PATHS } from './rules.ts'

export const VERIFY_OPTIONS: SchemaFor<VerifyManifestsOptions> = {
  requireManifest: option(BOOLEAN, 'fail for an image without a manifest', { flag: 'manifest' }),
  ...SHARE_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Compares images with the manifests beside them: each is checked, and its own content is
 * read and compared with the hash taken when it was made. The images it builds on
 * have manifests of their own.
 * @throws BackupError IO, BAD_MANIFEST, UNSUPPORTED, IN_USE, ABORTED, USAGE
 */
export async function* verifyManifests(
  images: readonly string[],
  options: VerifyManifestsOptions = {},
): AsyncGenerator<ManifestVerdict, void, undefined> {
  const own = ownArgument('images', PATHS, images)
  const checked = checkOptions(VERIFY_OPTIONS, options)
  const call = new Call(own[0] ?? 'images', checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const { verifyManifests: run } = await import('../backup/verify-manifests.ts')
  yield* call.each(() => run(own, { ...checked, onProgress }))
}
