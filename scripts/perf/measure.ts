import { readFile, rm, stat } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { requireSuccess, run, succeed } from './process.ts'
import type { Run } from './results.ts'

/** Something that is more than one command, and takes its own time. */
export interface Timed<T> {
  /** The command, for people. */
  words: string
  run(): Promise<T>
}

/**
 * Runs a command under GNU time and reads its cost.
 *
 * GNU time stands between because Node reports no rusage of its children, and because the resident
 * set of a forked process counts towards the peak of what it then executes: a small parent keeps
 * that honest. Wall time is our own, its hundredths being too coarse for the short cases. Bytes
 * written are `ru_oublock` × 512: bytes sent to the block layer, or dirtied if buffered.
 * @param usage scratch file for the figures
 * @param target the file that the command makes, if it makes one
 * @param onWords called when it says something on stderr
 * @throws BackupError IO if the command fails
 */
export async function measure(
  command: string[],
  usage: string,
  target: string,
  signal: AbortSignal,
  onWords?: () => void,
): Promise<Run> {
  const timed = ['time', '-q', '-o', usage, '-f', '%U %S %M %O', ...command]
  const finished = await run(timed, signal, [], onWords)
  requireSuccess(command, finished)
  const [user, system, kib, blocks] = (await readFile(usage, 'utf8')).split(' ').map(Number)
  const size = await sizeOf(target)
  return {
    wall: finished.wall,
    cpu: user + system,
    peak: kib * 1024,
    written: blocks * 512,
    ...size,
  }
}

/** Length and blocks of a target in bytes, 0 of one that is not there. */
export async function sizeOf(target: string): Promise<Pick<Run, 'fileSize' | 'allocated'>> {
  try {
    const { size, blocks } = await stat(target)
    return { fileSize: size, allocated: blocks * 512 }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { fileSize: 0, allocated: 0 }
    throw error
  }
}

/**
 * Drops a file from the page cache, dirty pages written first, without privileges: dd with no
 * input to copy and `nocache` is posix_fadvise(DONTNEED) over the whole file.
 */
export async function evict(file: string, signal: AbortSignal): Promise<void> {
  const flags = ['bs=1', 'count=0', 'oflag=nocache', 'conv=notrunc,fdatasync']
  await succeed(['dd', 'if=/dev/null', `of=${file}`, ...flags], signal)
}

/** Milliseconds in which ext4 mounted with `discard` hands freed blocks to the device. */
const REST = 500

/**
 * Removes a target and waits until the file system has written that down, so that nothing of one
 * run is left for the next to pay.
 */
export async function settle(target: string, dir: string, signal: AbortSignal): Promise<void> {
  await rm(target, { force: true })
  await succeed(['sync', '-f', dir], signal)
  await pause(REST, undefined, { signal })
}
