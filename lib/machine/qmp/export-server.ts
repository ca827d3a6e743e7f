import { BackupError } from '../../errors.ts'
import { removeDirectory } from '../../files.ts'
import { parseNbdUri } from '../../nbd/uri.ts'
import type { QmpClient } from '../../qmp/client.ts'
import { QmpError } from '../../qmp/qmp-error.ts'
import type { QmpDisk } from './disks.ts'
import { createServerDirectory, serverDirectoryPath } from './server-directory.ts'

/** The URI of an export of the machine's NBD server, by the export's name. */
export type ExportUri = (name: string) => string

/**
 * Makes the machine serve NBD. A QEMU has one server at most: one that runs already gets our
 * exports, too, if we are told where it listens.
 * @param running URI of a server that may run already, whatever export it names
 * @throws BackupError USAGE, IN_USE, IO
 */
export async function openExportServer(
  client: QmpClient,
  run: string,
  disks: readonly QmpDisk[],
  title: string,
  running?: string,
): Promise<ExportUri> {
  if (running !== undefined) parseNbdUri(running)
  const path = await createServerDirectory(run, disks)
  try {
    await client.execute('nbd-server-start', { addr: { type: 'unix', data: { path } } })
    return (name) => `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(path)}`
  } catch (error) {
    await removeDirectory(serverDirectoryPath(run))
    if (!(error instanceof QmpError) || !/already running/.test(error.why)) throw error
    if (running !== undefined) return (name) => exportUri(running, name)
    const why =
      'an NBD server runs in it already, and QEMU has one at most: say where it listens (nbdServer)'
    throw new BackupError('IN_USE', title, why, { cause: error })
  }
}

/** The same server's URI with another export. */
function exportUri(uri: string, name: string): string {
  const { 1: server, 2: query = '' } = /^([^:]+:\/\/[^/?#]*)(?:\/[^?#]*)?(\?.*)?$/.exec(uri) ?? []
  return `${server}/${encodeURIComponent(name)}${query}`
}
