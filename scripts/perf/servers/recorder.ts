import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { QmpClient } from '../../../lib/qmp/client.ts'
import { type Server, type Stage, socketPath, socketUri, startServer } from './server.ts'

const NODE = 'disk'

/** A storage daemon that serves an image for writing, and whose bitmaps come and go meanwhile. */
export interface Recorder extends Server {
  uri: string
  /** Adds a persistent bitmap; it records from now on. */
  add(name: string, granularity: number): Promise<void>
  /** It stays as it is. */
  disable(name: string): Promise<void>
}

/** @param image qcow2; its bitmaps are stored when the daemon is stopped */
export async function startRecorder(image: string, stage: Stage): Promise<Recorder> {
  const monitor = socketPath(stage, 'recorder.qmp')
  const socket = socketPath(stage, 'recorder.sock')
  const pidFile = join(stage.scratch, 'recorder.pid')
  await rm(pidFile, { force: true })
  const file = { driver: 'file', filename: image, discard: 'unmap' }
  const node = { driver: 'qcow2', 'node-name': NODE, discard: 'unmap', file }
  const exported = { id: 'export', type: 'nbd', 'node-name': NODE, name: NODE, writable: true }
  const argv = [
    'qemu-storage-daemon',
    ...['--chardev', `socket,id=monitor,path=${monitor},server=on,wait=off`],
    ...['--monitor', 'chardev=monitor', '--pidfile', pidFile],
    ...['--nbd-server', JSON.stringify({ addr: { type: 'unix', path: socket } })],
    ...['--blockdev', JSON.stringify(node)],
    ...['--export', JSON.stringify(exported)],
  ]
  const server = await startServer(argv, pidFile, stage)
  const qmp = await QmpClient.connect(monitor, { signal: stage.signal })
  stage.atEnd(async () => qmp.close())
  return {
    ...server,
    uri: socketUri(socket, NODE),
    async add(name, granularity) {
      const bitmap = { node: NODE, name, granularity, persistent: true }
      await qmp.execute('block-dirty-bitmap-add', bitmap)
    },
    async disable(name) {
      await qmp.execute('block-dirty-bitmap-disable', { node: NODE, name })
    },
  }
}
