import type { Target } from '../copy/target/open-target.ts'
import { readSmall, stageText } from './files.ts'
import type { MachineFolder } from './machine-folder.ts'
import { definitionName } from './names.ts'

/** Bytes. libvirt's own limit for XML. */
const MAX_DEFINITION = 10 * 2 ** 20

/**
 * Copies the definition of a point into a directory, to be published with other files.
 * @returns to be discarded; undefined if the point has none
 * @throws BackupError TARGET_EXISTS, BAD_RECORD if it is too large, IO
 */
export async function stageDefinition(
  { directory }: MachineFolder,
  point: string,
  into: string,
  options: { force?: boolean } = {},
): Promise<Target | undefined> {
  const name = definitionName(point)
  const text = await readSmall(`${directory}/${name}`, MAX_DEFINITION)
  return text && (await stageText(`${into}/${name}`, text, options))
}
