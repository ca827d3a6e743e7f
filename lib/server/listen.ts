import { connect, type Server } from 'node:net'
import { BackupError, ioError } from '../errors.ts'
import { lstat, unlink } from '../files.ts'
import { type Address, formatAddress } from './address.ts'

/**
 * Has a server listen.
 * @param options.mine only this user may connect
 * @returns where it does: with the port that it got
 * @throws BackupError IO, IN_USE
 */
export async function listen(
  server: Server,
  address: Address,
  { mine = false }: { mine?: boolean } = {},
): Promise<Address> {
  const what = formatAddress(address)
  if ('path' in address) await removeDead(address.path, what)
  // The socket has its mode from its first moment; it is made before listen() returns.
  const before = mine ? process.umask(0o177) : undefined
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ ...address, backlog: 511 }, () => {
        server.off('error', reject)
        resolve()
      })
      if (before !== undefined) process.umask(before)
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw ioError(what, error)
    throw new BackupError('IN_USE', what, 'another program listens there', { cause: error })
  }
  const now = server.address()
  return typeof now === 'object' && now !== null && 'host' in address
    ? { host: address.host, port: now.port }
    : address
}

/** Removes the socket of a server that was killed. Anything else stays, and listening fails. */
async function removeDead(path: string, what: string): Promise<void> {
  if (path.startsWith('\0')) return
  try {
    if (!(await lstat(path)).isSocket() || (await isAlive(path))) return
    await unlink(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw ioError(what, error)
  }
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
}
