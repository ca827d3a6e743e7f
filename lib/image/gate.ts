import { dirname } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { absolute, realpath } from '../files.ts'
import { quoted } from '../format/qcow2/fields.ts'

/** What a file named inside an image is to it. */
export type Role = 'backing file' | 'data file'

/** A file that passed the gate. */
export interface Passed {
  /** The name made a path: what the next name of the chain is relative to. */
  path: string
  /** The same without links: what was judged, so what must be opened. */
  real: string
}

/**
 * Decides whether a file that an image names may be followed. Images come from people who must not
 * be able to make us read other files of the host: only files that lie directly in the image's own
 * directory pass, and files anywhere below an allowed one. What counts is where a name leads in
 * the end, so `..` and symbolic links gain nothing.
 * @param name as it stands in the image; relative to the image's directory, as in QEMU
 * @param image the path by which the image was named
 * @param allowPaths directories below which any file may be opened
 * @throws BackupError NOT_ALLOWED, or IO if an allowed file is not there
 */
export async function passGate(
  name: string,
  image: string,
  role: Role,
  allowPaths: readonly string[],
): Promise<Passed> {
  const refuse = (why: string, hintValue?: string) =>
    new BackupError('NOT_ALLOWED', image, `its ${role} ${quoted(name)} ${why}`, {
      hint: hintValue === undefined ? undefined : 'allowPaths',
      hintValue,
    })
  // As QEMU sees it: a colon before any slash makes json:, nbd:, file: and so on.
  if (/^[^/]*:/.test(name)) throw refuse('is not a plain file name; protocols are not followed')

  // Not path.join(), which would take `link/..` for nothing.
  const path = name.startsWith('/') ? name : `${dirname(image)}/${name}`
  const real = await realpath(path).catch((error) => ioError(path, error))
  // A name that leads nowhere is judged as it reads: a refusal must not tell what exists outside.
  const judged = typeof real === 'string' ? real : absolute(path)
  if (!(await isAllowed(judged, image, allowPaths))) {
    throw refuse("lies outside of the image's directory", dirname(judged))
  }
  if (typeof real !== 'string') throw real
  return { path, real }
}

async function isAllowed(
  file: string,
  image: string,
  allowPaths: readonly string[],
): Promise<boolean> {
  const directory = dirname(file)
  // An image that was opened through a link has two directories: the link's, which QEMU's names
  // are relative to, and its own.
  if (directory === (await realPath(dirname(image)))) return true
  if (directory === dirname(await realPath(image))) return true
  for (const allowed of allowPaths) {
    const real = await realPath(allowed)
    if (real === '/' || file.startsWith(`${real}/`)) return true
  }
  return false
}

async function realPath(path: string): Promise<string> {
  return await realpath(path).catch((error) => {
    throw ioError(path, error)
  })
}
