import { type LuksHeader, readLuksHeader } from '../format/luks.ts'
import { type Bitmap, bitmapsAreCurrent, readBitmaps } from '../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { readSnapshots, type Snapshot } from '../format/qcow2/snapshots.ts'
import type { OpenFile } from '../image/file.ts'
import { requireLoadable } from './bitmap-list.ts'
import { warningLine } from './messages.ts'

/** Metadata of a qcow2 image. */
export interface Qcow2Metadata {
  header: Qcow2Header
  /** Not read for a check. */
  snapshots: Snapshot[]
  /** None where they are not current. */
  bitmaps: Bitmap[]
  /** Of one encrypted with LUKS. */
  luks?: LuksHeader
}

/**
 * Reads the metadata that QEMU reads when it opens a qcow2 image, and as strictly.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function readMetadata(
  file: OpenFile,
  header: Qcow2Header,
  {
    checking,
    warn,
    signal,
  }: { checking?: boolean; warn?: (text: string) => void; signal?: AbortSignal },
): Promise<Qcow2Metadata> {
  if (header.extensions.bitmaps && !bitmapsAreCurrent(header)) warn?.(outOfDate(header))
  const { luks: at } = header.extensions
  const luks = at && (await readLuksHeader(file, at.offset))
  const snapshots = checking ? [] : await readSnapshots(file, header)
  const bitmaps = await readBitmaps(file, header)
  await requireLoadable(file, header, bitmaps, signal)
  return { header, snapshots, bitmaps, luks }
}

/** QEMU's message about bitmaps that it therefore does not read; without the last line feed, as in QEMU. */
function outOfDate({ version }: Qcow2Header): string {
  const what =
    version < 3
      ? 'This qcow2 v2 image contains bitmaps, but they may have been modified by a program ' +
        'without persistent bitmap support; so now they must all be considered inconsistent'
      : 'a program lacking bitmap support modified this file, so all bitmaps are now considered ' +
        'inconsistent'
  return `${warningLine(what)}Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.`
}
