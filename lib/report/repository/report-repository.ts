import type { ControlOptions } from '../../options.ts'
import { Repository } from '../../repository/repository.ts'
import type { RetentionPolicy } from '../../repository/retention.ts'
import { type PageOptions, publishReport, type Reported } from '../publish.ts'
import { renderRepositoryReport } from './page.ts'
import { surveyRepository } from './survey.ts'
import type { RepositoryReport } from './types.ts'

/** Options of `reportRepository`. */
export type ReportRepositoryOptions = PageOptions & RetentionPolicy & ControlOptions

/**
 * Reports on a repository.
 * @throws BackupError BAD_RECORD or UNSUPPORTED if it is none, IO; as `publishReport`; ABORTED
 */
export async function reportRepository(
  directory: string,
  { output, force, signal, onProgress, ...policy }: ReportRepositoryOptions,
): Promise<Reported<RepositoryReport>> {
  const repository = await Repository.open(directory)
  const survey = () => surveyRepository(repository, policy, { signal, onProgress })
  const page = { output, force, signal }
  return await publishReport(directory, page, [], survey, renderRepositoryReport)
}
