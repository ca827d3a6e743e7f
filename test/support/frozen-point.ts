/** What a disk held at the instant of a backup, found out by others' programs while the guest goes on. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, rmSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** SHA-256 of a raw disk; it is removed. */
async function hashAndRemove(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  rmSync(path)
  return hash.digest('hex')
}

/**
 * Hash of what an export shows, by libnbd's hand. QEMU before 8.0 answers right only for single clusters of
 * a point in time, and qemu-img cannot be told to ask for no more.
 * @param scratch path of a file that is made and removed
 */
export async function hashOfExport(uri: string, scratch: string): Promise<string> {
  await execute('nbdcopy', ['--no-extents', '--request-size=65536', uri, scratch])
  return await hashAndRemove(scratch)
}

/** Hash of an image's content with its chain, by QEMU's hand, also of one that a stopped guest has open. */
export async function hashOfImage(path: string, format: string, scratch: string): Promise<string> {
  await execute('qemu-img', ['convert', '-U', '-f', format, '-O', 'raw', path, scratch])
  return await hashAndRemove(scratch)
}
