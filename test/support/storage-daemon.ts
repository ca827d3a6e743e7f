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
  /** Opens an image as a node. */
  open(node: string, path: string, format?: 'raw' | 'qcow2'): Promise<void>
  addBitmap(node: string, name: string, granularity?: number): Promise<void>
  /** Exports a node; returns the URI. */
  export(node: string, options?: ExportOptions): Promise<string>
  /** Ends an export and waits until the node is free. */
  unexport(name: string): Promise<void>
}

/** Starts a storage daemon that has no nodes yet. */
export async function startStorageDaemon(t: Test): Promise<StorageDaemon> {
  const directory = socketDirectory(t)
  const [monitor, socket, pidFile] = ['qmp', 'nbd', 'pid'].map((name) => join(directory, name))
  const args = [
    ...['--chardev', `socket,id=monitor,path=${monitor},server=on,wait=off`],
    ...['--monitor', 'chardev=monitor'],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--pidfile', pidFile],
  ]
  const server = await startServer(t, 'qemu-storage-daemon', args, pidFile)
  const client = await QmpClient.connect(monitor)
  t.teardown(() => client.close())
  const qmp: StorageDaemon['qmp'] = (command, options) => client.execute(command, options)
  return {
    ...server,
    qmp,
    client,
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
