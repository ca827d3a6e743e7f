import type { SourceIdentity } from '../copy/target/open-target.ts'
import { openText } from '../copy/target/text-file.ts'
import { argumentError, throwIfAborted } from '../errors.ts'

/** Where the page of a report goes. */
export interface PageOptions {
  /** Path of a file to make. Default: none, the page is only part of the result. */
  output?: string
  /** Replace a page that exists, once the new one is complete. */
  force?: boolean
}

/** A report: what was found, and the page that shows it. */
export interface Reported<Report> {
  report: Report
  /** One page that needs nothing else. */
  html: string
  /** Caveats about the file that it was written to. */
  notes?: string[]
}

/**
 * Makes a report, and the file of its page.
 * @param what the subject, for messages
 * @param sources what is read, none of which may be the file
 * @throws BackupError TARGET_EXISTS or BAD_TARGET, before the work begins; USAGE, IO, ABORTED
 */
export async function publishReport<Report>(
  what: string,
  { output, force, signal }: PageOptions & { signal?: AbortSignal },
  sources: readonly SourceIdentity[],
  survey: () => Promise<Report>,
  render: (report: Report) => string,
): Promise<Reported<Report>> {
  const make = async () => {
    const report = await survey()
    // The last progress may have been what ended it.
    throwIfAborted(signal, what)
    return report
  }
  if (output === undefined) {
    if (force) throw argumentError('force', 'there is no output file')
    const report = await make()
    return { report, html: render(report) }
  }
  const file = await openText(output, { force, sources, replaces: 'page' })
  try {
    const report = await make()
    const html = render(report)
    await file.write(html)
    const notes = await file.publish()
    return { report, html, ...(notes.length > 0 ? { notes } : {}) }
  } finally {
    await file.discard()
  }
}
