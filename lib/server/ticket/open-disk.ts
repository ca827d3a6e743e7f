import { argumentError } from '../../errors.ts'
import { openImageDisk } from '../disk/image-disk.ts'
import { openNbdDisk } from '../disk/nbd-disk.ts'
import { openNewImage } from '../disk/new-image.ts'
import { openPointDisk } from '../disk/repository-disk.ts'
import type { ServedDisk } from '../disk/served-disk.ts'
import type { CheckedTicket } from './request.ts'

/** What may be served. */
export interface DiskOptions {
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The directory of the repository that `repo:` means. */
  repository?: string
}

/**
 * Opens the disk of a ticket.
 * @throws BackupError
 */
export async function openDisk(ticket: CheckedTicket, options: DiskOptions): Promise<ServedDisk> {
  const { place, size, format, sparse, bitmap } = ticket
  const writable = ticket.ops.includes('write')
  const dirty = ticket.dirty && (bitmap ?? true)
  switch (place.kind) {
    case 'nbd':
      return await openNbdDisk(place.uri, { writable, sparse, dirty })
    case 'repository': {
      const { repository } = options
      if (repository === undefined) throw argumentError('url', 'no repository is served')
      return await openPointDisk(repository, place)
    }
    case 'file': {
      const { path } = place
      const { allowPaths } = options
      if (!writable) return await openImageDisk(path, { allowPaths, format, dirty })
      const made = format ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')
      return await openNewImage({ path, size, format: made })
    }
  }
}
