import { BackupError } from '../../errors.ts'
import { native } from '../../native.ts'
import { NbdConnection } from '../../nbd/connection.ts'
import { exportOf, type NbdOptions, openServer } from '../../nbd/export.ts'
import { IN_PLACE } from './in-place.ts'
import type { Target } from './target.ts'

/**
 * Opens an export of an NBD server to be overwritten in place. It always exists, and naming it is
 * a request to overwrite it.
 * @param noHole zeroes are to take up room on the server
 * @throws BackupError USAGE, IO, BAD_TARGET if the export is read-only,
 * ABORTED
 */
export async function openNbdTarget(
  uri: string,
  options: NbdOptions & { noHole?: boolean },
): Promise<Target> {
  const server = await openServer(uri, options)
  const connection = await NbdConnection.open(server)
  const { info } = connection
  const { displayUri: path } = server
  if (info.readOnly) {
    connection.close()
    throw new BackupError('BAD_TARGET', path, 'is exported read-only; export it writable')
  }
  const store = {
    ...exportOf(server, info, options),
    canZero: info.canZero,
    noHole: options.noHole ?? false,
    // The server may take no second one, or end with its first.
    connection: connection.take(),
  }
  return {
    ...IN_PLACE,
    kind: 'nbd',
    path,
    store,
    inPlace: true,
    capacity: info.size,
    async sizes() {
      return { fileSize: info.size, allocatedBytes: info.size }
    },
    located: async () => path,
    // The copy ends with a flush.
    async sync() {},
    async discard() {
      connection.close()
      if (store.connection) native().nbdClose(store.connection)
    },
  }
}
