import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { ioError } from '../errors.ts'
import { open } from '../files.ts'

/** Bytes that are read of each file at a time. */
const PART = 256 * 1024
/** Characters of a difference that are shown. */
const SHOWN = 4096

/**
 * How two files differ, as `diff -u` shows it, up to some thousand characters.
 * @param stream name of the stream
 * @returns undefined if they are equal
 * @throws BackupError IO
 */
export async function difference(
  theirs: string,
  ours: string,
  stream: string,
  signal?: AbortSignal,
): Promise<string | undefined> {
  if (await equal(theirs, ours)) return undefined
  const labels = ['--label', `qemu-img ${stream}`, '--label', `qcow2-backup ${stream}`]
  const args = ['-u', '--speed-large-files', ...labels, theirs, ours]
  const text = await promisify(execFile)('diff', args, { signal, maxBuffer: 2 ** 30 }).then(
    ({ stdout }) => stdout,
    (error) => {
      // 1: they differ.
      if (error.code === 1) return error.stdout as string
      throw ioError('diff', error)
    },
  )
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}\n… and more\n` : text
}

async function equal(a: string, b: string): Promise<boolean> {
  const files = await Promise.all([open(a), open(b)])
  try {
    const parts = [Buffer.alloc(PART), Buffer.alloc(PART)]
    for (let at = 0; ; at += PART) {
      const [x, y] = await Promise.all(
        files.map(async (file, i) => {
          const { bytesRead } = await file.read(parts[i], 0, PART, at)
          return parts[i].subarray(0, bytesRead)
        }),
      )
      if (!x.equals(y)) return false
      if (x.length < PART) return true
    }
  } finally {
    for (const file of files) await file.close()
  }
}
