import type { FullOptions, IncrementalOptions } from '../backup/types.ts'
import { abortedError, argumentError, usageError } from '../errors.ts'
import type { ControlOptions } from '../options.ts'
import type { ImageStream, StreamResult } from '../stream/image-stream.ts'
import { formatSize } from '../units.ts'
import type { Io } from './io.ts'
import { describeDisk } from './output.ts'
import type { OutputFlags } from './output-flags.ts'
import { humanLines } from './print-result.ts'
import { runWithProgress } from './progress-display.ts'

/** The target that stands for standard output. */
export const STDOUT = '-'
const NAME = 'standard output'

/** Options of a copy that a stream cannot have, and why. */
const REFUSED = {
  verify: 'a stream cannot be read back; compare it where it was stored',
  manifest: 'a stream has no file beside it',
  compress: 'the layout of a stream is known before its data is: compress the stream itself',
  compressionLevel:
    'the layout of a stream is known before its data is: compress the stream itself',
  discardAfterCopy: 'nobody knows what of a stream is durable',
  force: 'standard output has nothing to replace',
} satisfies Partial<Record<keyof IncrementalOptions, string>>

/**
 * Options of a copy as those of a stream.
 * @throws BackupError USAGE for one that a stream cannot have
 */
export function forStream<O extends Partial<FullOptions>>(
  options: O,
): Omit<O, keyof typeof REFUSED> {
  const own: Record<string, unknown> = { ...options }
  for (const [key, why] of Object.entries(REFUSED)) {
    if (own[key] !== undefined) throw argumentError(key, `with the target -: ${why}`)
    delete own[key]
  }
  return own as Omit<O, keyof typeof REFUSED>
}

/**
 * Writes a stream to standard output. With `--json` its size comes first, on a line of its own on stderr, and
 * then the result, so that whoever takes the stream can tell a complete one.
 */
export async function runStream(
  io: Io,
  flags: OutputFlags,
  open: (control: Required<ControlOptions>) => Promise<ImageStream>,
): Promise<void> {
  if (io.stdoutIsTerminal)
    throw usageError(NAME, 'is a terminal; pipe it, or redirect it to a file')
  const result = await runWithProgress(io, flags, async (control, display) => {
    const image = await open(control)
    const { size: fileSize, virtualSize } = image
    if (flags.json) display.say(`${JSON.stringify({ fileSize, virtualSize })}\n`)
    await writeAll(io, image, control.signal)
    return await image.done
  })
  io.stderr(flags.json ? `${JSON.stringify(result)}\n` : humanLines(describe(result)))
}

async function writeAll(io: Io, { stream, done }: ImageStream, signal: AbortSignal): Promise<void> {
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(abortedError(NAME, signal)), { once: true })
  })
  aborted.catch(() => {})
  try {
    for await (const chunk of stream) {
      // A reader that does not read keeps a thread waiting; the signal must not wait for it.
      await Promise.race([io.writeBytes(chunk), aborted])
    }
  } catch (error) {
    // The reason, not that the stream ended.
    if (stream.errored === error) await done
    throw error
  }
}

function describe(result: StreamResult): string[] {
  const { fileSize, elapsedSeconds, notes = [] } = result
  return [
    `${NAME}: complete`,
    describeDisk(result),
    `  ${formatSize(fileSize)} written, ${elapsedSeconds.toFixed(2)} s`,
    ...notes.map((note) => `  note: ${note}`),
  ]
}
