import { join } from 'node:path'
import type { Test } from 'tap'
import { QmpClient } from '../../lib/qmp/client.ts'
import { type RunningServer, socketDirectory, startServer, unixUri } from './server.ts'

export interface ExportOptions {
  /** Of the export; default: the node's name. */
  name?: string
  writable?: boolean
  bitmaps?: readonly { node: string; name: string }[]
}

/** A `qemu-storage-daemon` with an NBD server on a Unix socket, ended with the test. */
export interface StorageDaemon extends RunningServer {
  /** Runs a QMP command; throws with its description if it fails. */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>
  readonly client: QmpClient
  /** Path of a second monitor: one takes one client. */
  readonly monitor: string
  /** Of the NBD server. */
  readonly socket: string
  /** Starts the NBD server. */
  serve(): Promise<void>
  /** Opens an image as a node. */
  open(node: string, path: string, format?: 'raw' | 'qcow2'): Promise<void>
  addBitmap(node: string, name: string, granularity?: number): Promise<void>
  /** Exports a node; returns the URI. */
  export(node: string, options?: ExportOptions): Promise<string>
  /** Ends an export and waits until the node is free. */
  unexport(name: string): Promise<void>
}

/**
 * Starts a storage daemon that has no nodes yet.
 * @param options.serving whether its NBD server runs from the start, default true
 */
export async function startStorageDaemon(
  t: Test,
  { serving = true }: { serving?: boolean } = {},
): Promise<StorageDaemon> {
  const directory = socketDirectory(t)
  const path = (name: string) => join(directory, name)
  const [own, monitor, socket, pidFile] = ['own', 'qmp', 'nbd', 'pid'].map(path)
  const monitorArguments = (id: string, socketPath: string) => [
    ...['--chardev', `socket,id=${id},path=${socketPath},server=on,wait=off`],
    ...['--monitor', `chardev=${id}`],
  ]
  const args = [
    ...monitorArguments('own', own),
    ...monitorArguments('second', monitor),
    ...(serving ? ['--nbd-server', `addr.type=unix,addr.path=${socket}`] : []),
    ...['--pidfile', pidFile],
  ]
  const server = await startServer(t, 'qemu-storage-daemon', args, pidFile)
  const client = await QmpClient.connect(own)
  t.teardown(() => client.close())
  const qmp: StorageDaemon['qmp'] = (command, options) => client.execute(command, options)
  return {
    ...server,
    qmp,
    client,
    monitor,
    socket,
    async serve() {
      await qmp('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } })
    },
    async open(node, path, format = 'qcow2') {
      const file = { driver: 'file', filename: path, discard: 'unmap' }
      await qmp('blockdev-add', { driver: format, 'node-name': node, discard: 'unmap', file })
    },
    async addBitmap(node, name, granularity = 65536) {
      await qmp('block-dirty-bitmap-add', { node, name, granularity })
    },
    async export(node, { name = node, writable = false, bitmaps } = {}) {
      const id = `export-${name}`
      const options = { id, type: 'nbd', 'node-name': node, name, writable, bitmaps }
      await qmp('block-export-add', options)
      return unixUri(socket, name)
    },
    async unexport(name) {
      const deleted = client.events({ names: ['BLOCK_EXPORT_DELETED'] })
      await qmp('block-export-del', { id: `export-${name}` })
      await deleted.next()
      deleted.close()
    },
  }
}
