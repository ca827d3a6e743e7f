import { BackupError, type Hint } from '../errors.ts'
import { type ForeignFormat, PROBE_BYTES, type ProbedFormat, probe } from '../format/probe.ts'
import { type ImageFile, readAt } from '../format/read.ts'
import type { Format } from './image-chain.ts'

/**
 * Recognises the format of a file that the user named; only its ends are read.
 * @throws BackupError IO
 */
export async function probeFile(file: ImageFile): Promise<ProbedFormat> {
  const length = Math.min(PROBE_BYTES, file.size)
  const head = await readAt(file, 0, length)
  // A format with its magic at the end is not recognised where that cannot be read; reading the
  // disk up to there fails then.
  const tail = await readAt(file, file.size - length, length).catch(() => Buffer.alloc(0))
  return probe(head, tail)
}

/**
 * The format of a file that the user named without one. Bytes of a format that is not read here must
 * not pass for those of a disk.
 * @param option by which the user can say the format, if there is one
 * @throws BackupError UNSUPPORTED for another format than ours
 */
export function formatOf(
  path: string,
  probed: ProbedFormat,
  option: Hint | null = 'format',
): Format {
  if (typeof probed !== 'string') throw foreign(path, probed, option)
  return probed === 'qcow2' ? 'qcow2' : 'raw'
}

/** Caveat about a disk that was recognised as raw, if any. */
export function noteOf(path: string, probed: ProbedFormat): string | undefined {
  if (probed !== 'luks') return undefined
  return `${path} contains a LUKS volume, which is copied as it is: encrypted`
}

function foreign(path: string, { name, driver }: ForeignFormat, option: Hint | null): BackupError {
  const convert = driver
    ? `convert it first (qemu-img convert -f ${driver} -O qcow2 …)`
    : 'unpack it first'
  const why = `is ${name}, which is not supported; ${convert}`
  const remedy = option === null ? {} : { hint: option, hintValue: 'raw' }
  return new BackupError('UNSUPPORTED', path, why, remedy)
}
