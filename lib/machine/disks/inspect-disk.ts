import { ioError } from '../../errors.ts'
import { access, constants } from '../../files.ts'
import { isWritten } from '../../image/locks.ts'
import { judgeBitmapChain } from '../../maintain/chain-report.ts'
import { openSource } from '../../source/open-source.ts'
import { closeAll, openChain } from '../../source/source-chain.ts'
import type { Ability, MachineDisk, MachineOptions } from '../machine.ts'
import { isExport } from './held-disk.ts'
import type { NamedDisk } from './parse-disks.ts'

type Access = Pick<MachineOptions, 'format' | 'allowPaths' | 'backingFormat'>

const POSSIBLE: Ability = { possible: true }

/**
 * What a disk is and allows, also while somebody else uses it.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO, ABORTED
 */
export async function inspectDisk(
  disk: NamedDisk,
  allowed: Access,
  signal?: AbortSignal,
): Promise<MachineDisk> {
  const { name, source, format: given = allowed.format } = disk
  if (isExport(disk)) return await inspectExport(disk, allowed, signal)
  const chain = await openChain(source, { ...allowed, format: given, signal, forceShare: true })
  try {
    const { bitmaps } = await judgeBitmapChain(chain, { signal })
    const written = chain.files.find(({ handle }) => isWritten(handle))
    const [{ header, size: virtualSize, format }] = chain.images
    return {
      name,
      path: source,
      format,
      virtualSize,
      // Those of QEMU and of this program's own runs that have not ended are shown as they are.
      bitmaps,
      full: written
        ? { ...no(`${written.path} is open for writing in another process`), code: 'IN_USE' }
        : POSSIBLE,
      incremental: await canRecord(source, header?.version),
    }
  } finally {
    await closeAll(chain.files)
  }
}

async function inspectExport(
  { name, source }: NamedDisk,
  { format }: Access,
  signal?: AbortSignal,
): Promise<MachineDisk> {
  const opened = await openSource(source, { format, signal })
  try {
    return {
      name,
      format: opened.format,
      virtualSize: opened.size,
      bitmaps: [],
      full: POSSIBLE,
      incremental: no('an NBD server keeps no bitmap for a client'),
    }
  } finally {
    await opened.close()
  }
}

/** @param version of its qcow2 header; a raw disk has none */
async function canRecord(path: string, version: number | undefined): Promise<Ability> {
  if (version === undefined) return no('a raw disk holds no bitmaps')
  if (version < 3) return no('a qcow2 image of version 2 holds no bitmaps')
  try {
    await access(path, constants.W_OK)
    return POSSIBLE
  } catch (error) {
    return no(`a bitmap cannot be stored in it: ${ioError(path, error).why}`)
  }
}

function no(reason: string): Ability {
  return { possible: false, reason }
}
