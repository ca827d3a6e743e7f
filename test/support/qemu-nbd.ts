import { join } from 'node:path'
import type { Test } from 'tap'
import { type RunningServer, socketDirectory, startServer, unixUri } from './server.ts'

export interface QemuNbdOptions {
  format?: 'raw' | 'qcow2'
  /** The export's name. Default: empty. */
  name?: string
  /** Clients at once. Default 8; with 1 the server says no multi-conn. */
  shared?: number
  /** Persistent bitmaps to export. */
  bitmaps?: readonly string[]
  writable?: boolean
  /** Serve on when the last client has gone. Default: yes; qemu-nbd's own default: no. */
  persistent?: boolean
  /** Path of the socket, on which another one may have served before. Default: a new one. */
  socket?: string
}

export interface QemuNbd extends RunningServer {
  readonly uri: string
  readonly socket: string
}

/** `qemu-nbd` serving an image on a Unix socket until the test ends. */
export async function startQemuNbd(
  t: Test,
  image: string,
  options: QemuNbdOptions = {},
): Promise<QemuNbd> {
  const { format = 'qcow2', name = '', shared = 8, bitmaps = [], writable = false } = options
  const { persistent = true } = options
  const directory = socketDirectory(t)
  const { socket = join(directory, 'nbd') } = options
  const pidFile = join(directory, 'pid')
  const args = [
    ...(persistent ? ['--persistent'] : []),
    ...[`--shared=${shared}`, `--socket=${socket}`, `--pid-file=${pidFile}`],
    ...[`--format=${format}`, `--export-name=${name}`],
    ...bitmaps.map((bitmap) => `--bitmap=${bitmap}`),
    ...(writable ? [] : ['--read-only']),
    image,
  ]
  const server = await startServer(t, 'qemu-nbd', args, pidFile)
  return { ...server, socket, uri: unixUri(socket, name) }
}
