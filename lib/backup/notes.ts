import type { Target } from '../copy/target/target.ts'
import { CORRUPT } from '../format/qcow2/constants.ts'
import { findMounted } from '../image/storage.ts'
import type { Source } from '../source/source.ts'
import type { ChainImage } from '../source/source-chain.ts'
import { formatSize } from '../units.ts'

/** Caveats about the source: it is empty, marked as corrupt, or in use as a file system. */
export async function sourceNotes(source: Source): Promise<string[]> {
  if (source.size === 0) return [`${source.name}: is empty, a disk of 0 bytes`]
  const notes = corruptNotes(source.images)
  const files = source.stores.filter(({ kind }) => kind === 'file')
  // Without /sys or /proc this cannot be determined.
  const mounted = await findMounted(files).catch(() => undefined)
  if (mounted) {
    const why = 'is mounted for writing: the copy may mix several points in time'
    notes.push(`${mounted.path}: ${why}`)
  }
  return notes
}

/** QEMU marks an image in which it finds metadata that cannot be right; it can still be read. */
export function corruptNotes(images: readonly ChainImage[] = []): string[] {
  return images
    .filter(({ header }) => header && (header.incompatibleFeatures & CORRUPT) !== 0n)
    .map(({ path }) => `${path}: is marked as corrupt: its content may be wrong`)
}

/** Caveats about the target: its name misleads, or it was not filled. */
export function targetNotes(source: Source, target: Target, format: 'qcow2' | 'raw'): string[] {
  const { path, capacity, kind } = target
  if (format !== 'raw') return []
  if (kind === 'file' && /\.(qcow2|qcow|vmdk|vdi|vhdx?)$/i.test(path)) {
    return [`${path}: is a raw disk despite its name; output format qcow2 makes a qcow2 image`]
  }
  if (capacity === undefined || capacity <= source.size) return []
  const rest = formatSize(capacity - source.size)
  return [
    `${path}: is larger than the disk; the remaining ${rest} from ${source.size} on are unchanged`,
  ]
}
