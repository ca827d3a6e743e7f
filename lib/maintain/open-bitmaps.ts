import { argumentError } from '../errors.ts'
import { type Bitmap, readBitmaps } from '../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { readHeader } from '../format/qcow2/image.ts'
import { type OpenedFile, openFile } from '../image/file.ts'
import { lockOpened, READING, SHARED_READING } from '../image/locks.ts'
import { recogniseFormat } from '../image/recognise.ts'

/** Opens an image by itself, to look at its bitmaps. A raw one has none. */
export async function withBitmapsOf<T>(
  path: string,
  { format, forceShare }: { format?: 'raw' | 'qcow2'; forceShare?: boolean },
  look: (file: OpenedFile, header: Qcow2Header | undefined, bitmaps: Bitmap[]) => Promise<T>,
): Promise<T> {
  if (path === '') throw argumentError('image', 'has no name')
  const opened = await openFile(path)
  try {
    const file = await lockOpened(opened, forceShare ? SHARED_READING : READING)
    const found = format ?? (await recogniseFormat(file))
    if (found === 'raw') return await look(file, undefined, [])
    const header = await readHeader(file)
    return await look(file, header, await readBitmaps(file, header))
  } finally {
    await opened.handle.close()
  }
}
