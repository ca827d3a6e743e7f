import { publishAll, type Target } from '../../copy/target/open-target.ts'
import { messageOf, withNotes } from '../../errors.ts'
import { stageDefinition } from '../definition.ts'
import type { LockedMachine } from '../locked-machine.ts'
import type { MachineFolder } from '../machine-folder.ts'
import type { DiskRecord, PointRecord } from '../record.ts'
import { type CopyImageOptions, copyImage } from './copy-image.ts'
import type { CopiedPoint } from './types.ts'

/**
 * Copies a point: its images and its definition, each without a name until all are complete, then its record.
 * What it builds on is there.
 * @param optionsOf for each image
 * @throws BackupError; the point does not exist then
 */
export async function copyPoint(
  record: PointRecord,
  source: MachineFolder,
  target: LockedMachine,
  optionsOf: (disk: DiskRecord) => CopyImageOptions,
): Promise<CopiedPoint> {
  try {
    return await copyFiles(record, source, target, optionsOf)
  } catch (error) {
    const left = await target.clean().then(
      () => [],
      (failure) => [messageOf(failure)],
    )
    throw withNotes(error, left)
  }
}

async function copyFiles(
  record: PointRecord,
  source: MachineFolder,
  target: LockedMachine,
  optionsOf: (disk: DiskRecord) => CopyImageOptions,
): Promise<CopiedPoint> {
  const files: Target[] = []
  try {
    const copied = { point: record.point, fileSize: 0, allocatedBytes: 0 }
    for (const disk of record.disks) {
      const [from, to] = [source, target].map(({ directory }) => `${directory}/${disk.image}`)
      const file = await copyImage(from, to, disk, optionsOf(disk))
      files.push(file)
      const { fileSize, allocatedBytes } = await file.sizes()
      copied.fileSize += fileSize
      copied.allocatedBytes += allocatedBytes
    }
    const definition = await stageDefinition(source, record.point, target.directory)
    if (definition) files.push(definition)
    await target.announce(record, files)
    await publishAll([files])
    await target.record(record)
    return copied
  } finally {
    for (const file of files) await file.discard()
  }
}
