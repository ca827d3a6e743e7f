/** Who has a machine's folder locked, as the file of the lock says. */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { constants, type FileHandle, open, readFile, unlink } from '../files.ts'
import { oneLine } from '../text.ts'

/** The process that has a lock. */
export interface Holder {
  host: string
  /** Of the boot of its kernel. */
  boot: string
  pid: number
  /** When the process began, in ticks of its kernel: ids of processes are given again. */
  started: string
  /** When it took the lock, ISO 8601. */
  since: string
}

/** How often a holder writes to the file: its sign of life for other hosts. */
export const HEARTBEAT_MS = 60_000
/** A holder of another host that was silent for so long is gone. */
const SILENCE_MS = 10 * 60_000
const MAX_BYTES = 1024

export async function ownHolder(): Promise<Holder> {
  return {
    host: hostname(),
    boot: await bootOf(),
    pid: process.pid,
    started: (await startOf(process.pid)) ?? '',
    since: new Date().toISOString(),
  }
}

/** All that is in the file of a lock. */
export async function readHolder(lock: FileHandle): Promise<string> {
  const buffer = Buffer.alloc(MAX_BYTES)
  const { bytesRead } = await lock.read(buffer, 0, buffer.length, 0)
  return buffer.toString('utf8', 0, bytesRead)
}

/** For messages: ` (process 17 on kvm1)`; nothing if the text does not tell. */
export function describeHolder(text: string): string {
  const { pid, host } = parse(text)
  return Number.isInteger(pid) ? ` (process ${pid} on ${oneLine(String(host))})` : ''
}

/**
 * Judges the holder that a file names, though the kernel has granted its lock: on one host that proves that
 * the holder has ended. Between hosts a network file system may be mounted without locks, or may have
 * lost them; a holder there is alive as long as it writes to the file.
 * @param text of the file, which `lock` is
 * @param directory where the file is
 * @returns why the lock is not to be taken over; undefined if it may be
 * @throws errors of system calls
 */
export async function whyHeld(
  text: string,
  lock: FileHandle,
  directory: string,
): Promise<string | undefined> {
  if (text === '') return undefined
  const { host, boot, pid, started } = parse(text)
  // Containers of one kernel have names of their own.
  const isThisBoot = boot !== undefined && boot !== '' && boot === (await bootOf())
  if (isThisBoot && pid !== undefined && pid !== process.pid) {
    const isAlive = started !== undefined && (await startOf(pid)) === started
    if (isAlive) return `${describeHolder(text)}, which has lost its lock and is alive`
  }
  // Of this host before it was restarted nothing is left either.
  if (isThisBoot || host === hostname()) return undefined
  const { mtimeMs } = await lock.stat()
  const silence = (await serverTime(directory)) - mtimeMs
  if (silence >= SILENCE_MS) return undefined
  const seconds = Math.max(0, Math.round(silence / 1000))
  return (
    `${describeHolder(text)}, whose last sign of life is ${seconds} s old; ` +
    `${SILENCE_MS / 60_000} minutes after the last one another run takes over`
  )
}

function parse(text: string): Partial<Holder> {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    // Half of it was written, or it is somebody else's.
    return {}
  }
}

async function bootOf(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id').catch(() => '')).toString().trim()
}

/** When a process of this host began; undefined if there is none of that id. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`).catch(() => undefined)
  // The second field is the program's name in parentheses, which may hold any characters.
  return stat?.toString().split(') ').at(-1)?.split(' ')[19]
}

/** The time by the clock of a directory's file server, milliseconds: the hosts' own clocks may differ. */
async function serverTime(directory: string): Promise<number> {
  const path = `${directory}/.time.${randomBytes(6).toString('hex')}.partial`
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL
  const file = await open(path, flags, 0o600)
  try {
    await file.write('.')
    await file.sync()
    return (await file.stat()).mtimeMs
  } finally {
    await file.close()
    await unlink(path)
  }
}
