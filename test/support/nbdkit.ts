import { join } from 'node:path'
import type { Test } from 'tap'
import { type RunningServer, socketDirectory, startServer, unixUri } from './server.ts'

export interface Nbdkit extends RunningServer {
  readonly socket: string
  /** The URI of an export. */
  uri(name?: string): string
}

/**
 * `nbdkit ARGS…` (options, filters, plugin and its parameters) serving on a Unix socket until the
 * test ends.
 */
export async function startNbdkit(t: Test, ...args: string[]): Promise<Nbdkit> {
  const directory = socketDirectory(t)
  const socket = join(directory, 'nbd')
  const pidFile = join(directory, 'pid')
  const fixed = ['--foreground', '--exit-with-parent', '--unix', socket, '--pidfile', pidFile]
  const server = await startServer(t, 'nbdkit', [...fixed, ...args], pidFile)
  return { ...server, socket, uri: (name) => unixUri(socket, name) }
}
