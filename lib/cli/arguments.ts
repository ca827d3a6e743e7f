import { usageError } from '../errors.ts'
import { commandLineBytes } from '../files.ts'
import { decodeText, showText } from '../text.ts'

/** Node's replacement for bytes that are not UTF-8. */
const REPLACEMENT = '\ufffd'

/**
 * The arguments after the program's name, as `decodeText` has them. Node decodes them with loss: two
 * names that are not UTF-8 would become one, so the bytes are read from the kernel.
 * @throws BackupError USAGE if they are needed and cannot be had
 */
export function programArguments(): string[] {
  const told = process.argv.slice(2)
  if (!told.some((argument) => argument.includes(REPLACEMENT))) return told
  const all = commandLine()
  const own = all.slice(all.length - told.length)
  // Changing the title of the process overwrites them.
  if (own.length === told.length && own.every((bytes, i) => bytes.toString() === told[i])) {
    return own.map(decodeText)
  }
  const lost = told.find((argument) => argument.includes(REPLACEMENT)) as string
  throw usageError(
    showText(lost),
    'is not UTF-8, and its bytes cannot be read from /proc/self/cmdline; use another name',
  )
}

/** All arguments of the process, Node's own among them; none where /proc is not mounted. */
function commandLine(): Buffer[] {
  let bytes: Buffer
  try {
    bytes = commandLineBytes()
  } catch {
    return []
  }
  const parts: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const nul = bytes.indexOf(0, at)
    const end = nul < 0 ? bytes.length : nul
    parts.push(bytes.subarray(at, end))
    at = end + 1
  }
  return parts
}
