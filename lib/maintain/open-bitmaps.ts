import { argumentError } from '../errors.ts'
import { type Bitmap, readBitmaps } from '../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { readHeader } from '../format/qcow2/qcow2-image.ts'
import { type OpenFile, openFile } from '../image/file.ts'
import { lockOpened, READING, SHARED_READING } from '../image/locks.ts'
import { formatOf, probeFile } from '../image/recognise.ts'

/** Which image to open, and how. */
export interface BitmapsOfOptions {
  format?: 'raw' | 'qcow2'
  forceShare?: boolean
  /** The parameter or field that names it, for messages; default: image. */
  argument?: string
}

/** Opens an image without its backing chain, to read its bitmaps. A raw one has none. */
export async function withBitmapsOf<T>(
  path: string,
  { format, forceShare, argument = 'image' }: BitmapsOfOptions,
  look: (file: OpenFile, header: Qcow2Header | undefined, bitmaps: Bitmap[]) => Promise<T>,
): Promise<T> {
  if (path === '') throw argumentError(argument, 'the name is empty')
  const opened = await openFile(path)
  try {
    const file = await lockOpened(opened, forceShare ? SHARED_READING : READING)
    // No way out is offered for another format: as raw bytes it would have no bitmaps.
    const found = format ?? formatOf(path, await probeFile(file), null)
    if (found === 'raw') return await look(file, undefined, [])
    const header = await readHeader(file)
    return await look(file, header, await readBitmaps(file, header))
  } finally {
    await opened.handle.close()
  }
}
