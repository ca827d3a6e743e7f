import { unsupported } from '../errors.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { backingLayouts, type RecordedBacking, usedRanges } from '../format/qcow2/encode-backing.ts'
import type { Write } from '../image/steps.ts'
import type { EditedImage } from './edited-image.ts'
import { changed } from './header-steps.ts'

/**
 * How the header comes to name another backing file, or none: first what means nothing yet, then one
 * write within the first sector, which is atomic. Only where the first cluster has no room for the old
 * and the new it is one write of several sectors.
 * @throws BackupError UNSUPPORTED if there is no room for the name
 */
export function backingSteps(
  { file, first, header }: EditedImage,
  backing: RecordedBacking | undefined,
): Write[][] {
  const layouts = backingLayouts(first, header, backing)
  for (const layout of layouts) {
    const prepared = Buffer.from(layout)
    first.copy(prepared, 0, 0, SECTOR_SIZE)
    const keepsMeaning = usedRanges(first, header).every(({ start, length }) => {
      const [now, then] = [first, prepared].map((one) => one.subarray(start, start + length))
      return now.equals(then)
    })
    if (keepsMeaning) return [changed(first, prepared), changed(prepared, layout)]
  }
  if (layouts.length > 0) return [changed(first, layouts[0])]
  const name = backing?.file
  const qemu = `Could not change the backing file to '${name}': No space left in the file header`
  throw unsupported(file.path, 'there is no room in its header for the name', qemu)
}
