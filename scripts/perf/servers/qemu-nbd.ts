import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Server, type Stage, socketPath, socketUri, startServer } from './server.ts'

/** A qemu-nbd that serves one image for writing. */
export interface QemuNbd extends Server {
  uri: string
}

/**
 * Serves a qcow2 image for writing, past the page cache, to any number of clients. Its persistent
 * bitmaps record writes, and are stored when it is stopped.
 */
export async function startQemuNbd(image: string, stage: Stage): Promise<QemuNbd> {
  const socket = socketPath(stage, 'written.sock')
  const pidFile = join(stage.scratch, 'written.pid')
  await rm(pidFile, { force: true })
  const argv = [
    ...['qemu-nbd', '--persistent', '--shared=0', '--format=qcow2', '--discard=unmap'],
    ...['--cache=none', '--aio=native'],
    ...[`--socket=${socket}`, `--pid-file=${pidFile}`, '--export-name=disk', image],
  ]
  return { ...(await startServer(argv, pidFile, stage)), uri: socketUri(socket, 'disk') }
}
