import { type CopyOptions, commonUnit, patchFile } from '../../copy/patch.ts'
import { BackupError } from '../../errors.ts'
import { SUBCLUSTERS } from '../../format/qcow2/constants.ts'
import type { OpenFile } from '../../image/file.ts'
import { formatSize } from '../../units.ts'
import { heldMappings } from './held-mappings.ts'
import type { CommitPlan } from './to-qcow2.ts'

/**
 * Commits the data of the images above a raw base into it, which grows if needed.
 * @throws BackupError BAD_TARGET if a device is too small; IO, BAD_IMAGE, ABORTED: then it can be
 * done again
 */
export async function commitToRaw(
  file: OpenFile,
  { chain, base, size, counter }: CommitPlan,
  options?: CopyOptions,
): Promise<void> {
  const now = chain.layers[base].size
  if (file.blockDevice && size > now) {
    const why = `holds ${formatSize(now)}, the disk needs ${formatSize(size)}`
    throw new BackupError('BAD_TARGET', file.path, why)
  }
  const overlays = chain.images.slice(0, base).flatMap(({ header }) => header ?? [])
  const unit = commonUnit([
    size,
    ...overlays.flatMap(({ virtualSize, clusterSize, extendedL2 }) => {
      return [virtualSize, extendedL2 ? clusterSize / SUBCLUSTERS : clusterSize]
    }),
  ])
  // Bytes past the end of the file are zero anyway.
  const mappings = counter.count(
    heldMappings(chain.layers.slice(0, base), Number.POSITIVE_INFINITY),
  )
  await patchFile(chain.files, file, { mappings, size, unit }, options)
}
