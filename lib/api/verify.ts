import type { ManifestVerdict, VerifyManifestsOptions } from '../backup/verify-manifests.ts'
import { CONTROL_OPTIONS, SHARE_OPTIONS } from '../options.ts'
import type { RepositoryFinding } from '../repository/verify/finding.ts'
import type { VerifyRepositoryOptions } from '../repository/verify/verify-repository.ts'
import {
  BOOLEAN,
  checkArgument,
  checkOptions,
  list,
  option,
  ownArgument,
  PATH,
  PERCENT,
  type Rule,
  record,
  type SchemaFor,
  TEXT,
} from '../schema.ts'
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

/** Machines and points are arguments of the command line, not flags. */
const ONLY: Rule<NonNullable<VerifyRepositoryOptions['only']>> = {
  ...list(record({ machine: TEXT }, { point: TEXT })),
  form: 'none',
}

export const VERIFY_REPOSITORY_OPTIONS: SchemaFor<VerifyRepositoryOptions> = {
  only: option(ONLY, 'only these machines and points'),
  sample: option(
    PERCENT,
    '--repo: read so much of all bytes, what was not read for longest first',
    {
      fallback: 'all',
    },
  ),
  ...CONTROL_OPTIONS,
}

/**
 * Verifies what is in a repository: each image is opened as for a restore, its structure is checked, and its
 * content read and compared with the hash in its record; what builds on a bad one is said to. Records
 * that cannot be read, images without record, records without image, and what killed runs left are findings of
 * their own. What was read is remembered in the repository, where it can be written to.
 * @throws BackupError BAD_RECORD if it is no repository, UNSUPPORTED, IO, ABORTED, USAGE, before or between
 * findings
 */
export async function* verifyRepository(
  repository: string,
  options: VerifyRepositoryOptions = {},
): AsyncGenerator<RepositoryFinding, void, undefined> {
  checkArgument('repository', PATH, repository)
  const checked = checkOptions(VERIFY_REPOSITORY_OPTIONS, options)
  const call = new Call(repository, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const { Repository } = await import('../repository/repository.ts')
  const { verifyRepository: run } = await import('../repository/verify/verify-repository.ts')
  yield* call.each(async function* () {
    yield* run(await Repository.open(repository), { ...checked, onProgress })
  })
}
