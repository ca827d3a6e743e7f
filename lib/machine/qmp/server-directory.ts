/** The directory of the socket on which a QEMU serves NBD for a run. */
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ioError } from '../../errors.ts'
import { constants, mkdir, open, readdir } from '../../files.ts'
import type { QmpDisk } from './disks.ts'
import { readName, serverDirectory } from './names.ts'
import { ownerOf } from './scratch.ts'

/** The most that a Unix socket's path can have, bytes. */
const MAX_SOCKET_PATH = 107

/** How long an NBD server may take to greet. */
const GREETING_MS = 5_000

/**
 * Makes the directory of our NBD server's socket.
 * @returns the socket's path
 * @throws BackupError IO
 */
export async function createServerDirectory(run: string, disks: readonly QmpDisk[]) {
  const owner = await ownerOf(disks.find(({ path }) => path !== undefined)?.path)
  const directory = serverDirectoryPath(run)
  try {
    await mkdir(directory, 0o700)
    if (owner) {
      const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
      await handle.chown(owner.uid, owner.gid).finally(() => handle.close())
    }
  } catch (error) {
    throw ioError(directory, error)
  }
  return socketIn(directory)
}

/** The socket of our server, by its directory. */
export function socketIn(directory: string): string {
  return join(directory, 'nbd')
}

/** Where our server's socket of a run is. */
export function serverDirectoryPath(run: string): string {
  const path = join(tmpdir(), serverDirectory(run))
  return Buffer.byteLength(socketIn(path)) <= MAX_SOCKET_PATH
    ? path
    : join('/tmp', serverDirectory(run))
}

/** Directories of servers that have ended, by their runs: of those nothing else may be left. */
export async function deadServers(): Promise<{ run: string; directory: string }[]> {
  const all: { run: string; directory: string }[] = []
  for (const name of await readdir(tmpdir()).catch(() => [])) {
    const { run = '' } = readName(name) ?? {}
    const directory = join(tmpdir(), name)
    if (name !== serverDirectory(run) || (await answers(socketIn(directory)))) continue
    all.push({ run, directory })
  }
  return all
}

/**
 * Whether an NBD server greets there. Being connected is not enough: the socket of a QEMU that was
 * killed lives on until the kernel has ended its io_uring.
 */
export async function answers(path: string): Promise<boolean> {
  const socket = createConnection(path)
  // A server that is busy is one.
  socket.setTimeout(GREETING_MS)
  const greeted = await new Promise<boolean>((resolve) => {
    socket.once('data', () => resolve(true))
    socket.once('timeout', () => resolve(true))
    socket.once('error', () => resolve(false))
    socket.once('close', () => resolve(false))
  })
  socket.destroy()
  return greeted
}
