import { argumentError } from '../../errors.ts'
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
 * Opens the disk of a ticket. What that takes is loaded then.
 * @throws BackupError
 */
export async function openDisk(ticket: CheckedTicket, options: DiskOptions): Promise<ServedDisk> {
  const { place, size, format, sparse, bitmap } = ticket
  const writable = ticket.ops.includes('write')
  const dirty = ticket.dirty && (bitmap ?? true)
  switch (place.kind) {
    case 'nbd': {
      const { openNbdDisk } = await import('../disk/nbd-disk.ts')
      return await openNbdDisk(place.uri, { writable, sparse, dirty })
    }
    case 'repository': {
      const { repository } = options
      if (repository === undefined) throw argumentError('url', 'no repository is served')
      const { openPointDisk } = await import('../disk/repository-disk.ts')
      return await openPointDisk(repository, place)
    }
    case 'file': {
      const { path } = place
      const { allowPaths } = options
      const { openImageDisk } = await import('../disk/image-disk.ts')
      if (!writable) return await openImageDisk(path, { allowPaths, format, dirty })
      const made = format ?? (path.endsWith('.qcow2') ? 'qcow2' : 'raw')
      const { openNewImage } = await import('../disk/new-image.ts')
      return await openNewImage({ path, size, format: made })
    }
  }
}
