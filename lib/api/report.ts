import { CHAIN_OPTIONS, CONTROL_OPTIONS, FORCE_OPTIONS, FORMAT, SHARE_OPTIONS } from '../options.ts'
import type { ReportImageOptions } from '../report/image/report-image.ts'
import type { ImageReport } from '../report/image/types.ts'
import type { Reported } from '../report/publish.ts'
import type { ReportRepositoryOptions } from '../report/repository/report-repository.ts'
import type { RepositoryReport } from '../report/repository/types.ts'
import { checkArgument, checkOptions, option, PATH, type SchemaFor } from '../schema.ts'
import { Call } from './call.ts'
import { POLICY_OPTIONS } from './prune.ts'
import { TARGET } from './rules.ts'

const PAGE_OPTIONS = {
  output: option(TARGET, 'the page to make', { letter: 'o', value: 'file' }),
  ...FORCE_OPTIONS,
} as const

export const REPORT_IMAGE_OPTIONS: SchemaFor<ReportImageOptions> = {
  ...PAGE_OPTIONS,
  format: option(FORMAT, 'the format', { letter: 'f', value: 'format', fallback: 'by its magic' }),
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Looks at an image and all that it builds on, and makes a page of it: a map of the disk by image, dirty
 * bitmaps, snapshots, fragmentation, and the health of the chain in words. No content is read. The structure is
 * checked, and damage is part of the report.
 * @param image path of a raw or qcow2 image
 * @throws BackupError if it cannot be opened: BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO; TARGET_EXISTS,
 * BAD_TARGET, USAGE, ABORTED, CALLBACK
 */
export async function reportImage(
  image: string,
  options: ReportImageOptions = {},
): Promise<Reported<ImageReport>> {
  checkArgument('image', PATH, image)
  const checked = checkOptions(REPORT_IMAGE_OPTIONS, options)
  const { reportImage: run } = await import('../report/image/report-image.ts')
  const call = new Call(image, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(async () => call.noted(await run(image, { ...checked, onProgress })))
}

export const REPORT_REPOSITORY_OPTIONS: SchemaFor<ReportRepositoryOptions> = {
  ...PAGE_OPTIONS,
  ...POLICY_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Looks at a repository, and makes a page of it: machines, points on a line of time, growth, chains, what
 * was verified when, what the next prune would do by a policy, and what calls for action. Records are read,
 * and for the plan of a prune tables of images; what is broken is part of the report.
 * @throws BackupError BAD_RECORD or UNSUPPORTED if it is no repository; TARGET_EXISTS, BAD_TARGET, IO, USAGE,
 * ABORTED, CALLBACK
 */
export async function reportRepository(
  repository: string,
  options: ReportRepositoryOptions = {},
): Promise<Reported<RepositoryReport>> {
  checkArgument('repository', PATH, repository)
  const checked = checkOptions(REPORT_REPOSITORY_OPTIONS, options)
  const { reportRepository: run } = await import('../report/repository/report-repository.ts')
  const call = new Call(repository, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(async () => call.noted(await run(repository, { ...checked, onProgress })))
}
