import { argumentError } from '../errors.ts'
import { COPY_OPTIONS } from '../options.ts'
import type { CopyRepositoryOptions, CopyRepositoryResult } from '../repository/copy/types.ts'
import {
  BOOLEAN,
  checkArgument,
  checkOptions,
  option,
  PATH,
  type SchemaFor,
  TEXT,
} from '../schema.ts'
import { Call } from './call.ts'

const { force: _, ...HOW } = COPY_OPTIONS

export const COPY_REPOSITORY_OPTIONS: SchemaFor<CopyRepositoryOptions> = {
  machine: option(TEXT, 'only this machine'),
  point: option(TEXT, 'only this point of the machine, with all that its images build on'),
  dryRun: option(BOOLEAN, 'tell what would be copied, and copy nothing'),
  ...HOW,
}

/**
 * Copies points from a repository into another, which is made unless it is there: those that it lacks, by their
 * ids. A point comes after those that its images build on, and its record when all its files are complete, so
 * that whatever ends a copy, what is there can be restored, and the next copy goes on. Images are copied
 * byte for byte, and what was written is compared with the record before it gets its name.
 *
 * What fails is told in the result, and all else is copied: a point that is not as recorded leaves out those
 * that build on it; another point of the same name in the target leaves out the machine.
 * @param from path of the repository that is read
 * @param to path of the one that is added to
 * @throws BackupError USAGE if there is no such machine or point, BAD_TARGET if both are the same, BAD_RECORD,
 * UNSUPPORTED, IO, ABORTED
 */
export async function copyRepository(
  from: string,
  to: string,
  options: CopyRepositoryOptions = {},
): Promise<CopyRepositoryResult> {
  checkArgument('from', PATH, from)
  checkArgument('to', PATH, to)
  const checked = checkOptions(COPY_REPOSITORY_OPTIONS, options)
  if (checked.point !== undefined && checked.machine === undefined) {
    throw argumentError('point', 'needs a machine')
  }
  const call = new Call(to, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(async () => {
    const { Repository } = await import('../repository/repository.ts')
    const { copyRepository: run } = await import('../repository/copy/copy-repository.ts')
    return await run(await Repository.open(from), to, { ...checked, onProgress })
  })
}
