/** The directory of the socket on which a QEMU serves NBD for a run. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { ioError } from '../../errors.ts'
import { constants, mkdir, open, readdir, readFile } from '../../files.ts'
import { MAX_SOCKET_PATH } from '../../qmp/address.ts'
import { isRunAlive } from '../run-lock.ts'
import type { QmpDisk } from './disks.ts'
import { readName, serverDirectory } from './names.ts'
import { ownerOf } from './scratch.ts'

/** In the flags of `/proc/net/unix`: Linux's `__SO_ACCEPTCON`. */
const ACCEPTS_CONNECTIONS = 0x10000

/** A line: number, references, protocol, flags, type, state, inode, and the path if there is one. */
const SOCKET = /^\S+ +\S+ +\S+ +(?<flags>[0-9A-F]+) +\S+ +\S+ +\d+ (?<name>.*)$/

/** How long the socket of a process that has ended may linger. */
const MAX_LINGER_MS = 2_000
const LOOK_MS = 50

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

/** Directories of dead runs whose servers have ended: of those nothing else may be left. */
export async function deadServers(): Promise<string[]> {
  const all: string[] = []
  for (const name of await readdir(tmpdir()).catch(() => [])) {
    const { run = '' } = readName(name) ?? {}
    const directory = join(tmpdir(), name)
    if (name !== serverDirectory(run) || (await isRunAlive(run))) continue
    if (!(await hasEnded(socketIn(directory)))) continue
    all.push(directory)
  }
  return all
}

/**
 * Whether a process listens there. The kernel is asked, not the server: QEMU 7.2 hangs for good, and the
 * guest with it, if it is told to stop its server while a client that has connected does not negotiate.
 */
export async function listens(path: string): Promise<boolean> {
  const sockets = (await readFile('/proc/net/unix')).toString()
  return sockets.split('\n').some((line) => {
    const { flags = '', name } = SOCKET.exec(line)?.groups ?? {}
    return name === path && (Number.parseInt(flags, 16) & ACCEPTS_CONNECTIONS) !== 0
  })
}

/**
 * Whether nobody listens there any more. The socket of a QEMU that was killed lives on until the kernel has
 * ended its io_uring.
 */
export async function hasEnded(path: string): Promise<boolean> {
  const since = performance.now()
  while (await listens(path)) {
    if (performance.now() - since > MAX_LINGER_MS) return false
    await setTimeout(LOOK_MS)
  }
  return true
}
