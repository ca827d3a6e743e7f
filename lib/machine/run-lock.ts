import { createServer, connect as dial, type Server } from 'node:net'
import { BackupError } from '../errors.ts'

/** Shows to others that a run is alive. */
export interface RunLock {
  release(): void
}

/**
 * The name of a run's socket in Linux's abstract name space: no file, and the kernel frees it when the
 * process ends, however it ends. It is valid in one network name space, as the machine's monitor is
 * reached from one host.
 */
function socketOf(run: string): string {
  return `\0qcow2-backup-run-${run}`
}

/**
 * Marks a run as alive, for as long as this process lives or until it is released.
 * @param run which no other run has
 * @throws BackupError IN_USE if another live run has it
 */
export async function holdRun(run: string): Promise<RunLock> {
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'a run with this id is alive' : error.message
      reject(new BackupError('IN_USE', `run ${run}`, why, { cause: error }))
    })
    server.listen(socketOf(run), resolve)
  })
  server.unref()
  return { release: () => release(server) }
}

function release(server: Server): void {
  server.close()
}

/** Whether the process of a run is alive. */
export async function isRunAlive(run: string): Promise<boolean> {
  const socket = dial(socketOf(run))
  const alive = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true))
    // A queue that is full is somebody's: only a refused connection is nobody's.
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
  socket.destroy()
  return alive
}
