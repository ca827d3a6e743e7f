import type { ControlOptions } from '../../options.ts'
import { closeAll, type OpenOptions, openChain } from '../../source/source-chain.ts'
import { type PageOptions, publishReport, type Reported } from '../publish.ts'
import { renderImageReport } from './page.ts'
import { surveyChain } from './survey.ts'
import type { ImageReport } from './types.ts'

/** Options of `reportImage`. */
export type ReportImageOptions = PageOptions &
  ControlOptions &
  Pick<OpenOptions, 'format' | 'allowPaths' | 'backingFormat' | 'forceShare'>

/**
 * Reports on an image and all that it builds on.
 * @throws BackupError if it cannot be opened: BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO. Damage
 * that is found later is reported. As `publishReport`; ABORTED
 */
export async function reportImage(
  image: string,
  { output, force, onProgress, ...options }: ReportImageOptions,
): Promise<Reported<ImageReport>> {
  const chain = await openChain(image, options)
  try {
    const { signal } = options
    const survey = () => surveyChain(image, chain, { signal, onProgress })
    const page = { output, force, signal }
    return await publishReport(image, page, chain.files, survey, renderImageReport)
  } finally {
    await closeAll(chain.files)
  }
}
