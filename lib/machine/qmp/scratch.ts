import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { BackupError, ioError } from '../../errors.ts'
import type { Range } from '../../extents/range-set.ts'
import {
  access,
  constants,
  descriptorPath,
  type FileHandle,
  open,
  stat,
  statfs,
  unlink,
} from '../../files.ts'
import { native } from '../../native.ts'
import { formatSize } from '../../units.ts'
import type { QmpDisk } from './disks.ts'
import { nameOf } from './names.ts'

/** What must be free where temporary images are: below it the backup ends, before QEMU's writes fail. */
export const MIN_FREE = 32 * 2 ** 20

/** A temporary image: a raw file in which QEMU keeps what the guest overwrites. */
export interface Scratch {
  readonly path: string
  /** The ranges that it holds now, guest bytes. */
  held(): Promise<readonly Range[]>
  /** Bytes allocated. */
  bytes(): Promise<number>
  /** @throws BackupError IO with errno ENOSPC if there is too little space for it to grow */
  requireSpace(): Promise<void>
  close(): Promise<void>
}

/**
 * Makes a temporary image for a disk, which only QEMU and we can read.
 * @param directory default: the disk's own, else the system's for temporary files
 * @throws BackupError IO
 */
export async function createScratch(
  disk: QmpDisk,
  run: string,
  index: number,
  directory?: string,
): Promise<Scratch> {
  const where = directory ?? (await defaultDirectory(disk))
  const path = join(where, `${nameOf(run, 'tmp', index)}.raw`)
  let file: FileHandle
  try {
    file = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600)
  } catch (error) {
    throw ioError(path, error)
  }
  try {
    await file.truncate(disk.virtualSize)
    await giveToQemu(disk, file)
    const scratch = scratchOf(file, path, where, disk.virtualSize)
    await scratch.requireSpace()
    return scratch
  } catch (error) {
    await file.close()
    await unlink(path).catch(() => undefined)
    throw ioError(path, error)
  }
}

function scratchOf(file: FileHandle, path: string, where: string, size: number): Scratch {
  return {
    path,
    async held() {
      const ranges: Range[] = []
      for (let at = 0; at < size; ) {
        const runs = await native().fileExtents(file.fd, at, size, 1024)
        if (runs.length === 0) break
        for (let i = 0; i < runs.length; i += 3) {
          if (runs[i + 2] === 1) ranges.push({ start: runs[i], length: runs[i + 1] })
          at = runs[i] + runs[i + 1]
        }
      }
      return ranges
    },
    async bytes() {
      return (await file.stat()).blocks * 512
    },
    async requireSpace() {
      const { bavail, bsize } = await statfs(descriptorPath(file))
      if (bavail * bsize >= MIN_FREE) return
      const why = `only ${formatSize(bavail * bsize)} are free for what the guest overwrites`
      throw new BackupError('IO', where, `${why}; use another directory (scratch)`, {
        errno: 'ENOSPC',
      })
    },
    close: () => file.close(),
  }
}

/** A directory that cannot be written to is left to the next choice. */
async function defaultDirectory({ path }: QmpDisk): Promise<string> {
  if (path === undefined) return tmpdir()
  try {
    if (!(await stat(path)).isFile()) return tmpdir()
    await access(dirname(path), constants.W_OK | constants.X_OK)
    return dirname(path)
  } catch {
    return tmpdir()
  }
}

/** Where we are root and QEMU is not, it is the owner of its disk who has to open the file. */
async function giveToQemu({ path }: QmpDisk, file: FileHandle): Promise<void> {
  const owner = await ownerOf(path)
  if (owner) await file.chown(owner.uid, owner.gid)
}

/** Whom QEMU runs as, where that may matter. */
export async function ownerOf(path?: string): Promise<{ uid: number; gid: number } | undefined> {
  if (process.getuid?.() !== 0 || path === undefined) return undefined
  try {
    const { uid, gid } = await stat(path)
    return { uid: Number(uid), gid: Number(gid) }
  } catch {
    return undefined
  }
}
