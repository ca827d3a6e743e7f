import { readFile, writeFile } from 'node:fs/promises'

/** Clock ticks a second in /proc: `USER_HZ`, which is 100 on every architecture that Node runs on. */
const TICKS = 100

/** Resources that a process has used so far. */
export interface Usage {
  /** Seconds of user and system time. */
  cpu: number
  /** Largest resident set, bytes. */
  peak: number
  /** Bytes it caused to be written. */
  written: number
}

/** Resets the peak memory of a process: proc(5), clear_refs. */
export async function resetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5')
}

/** Reads a process's usage: proc(5), stat, status and io. */
export async function usageOf(pid: number): Promise<Usage> {
  const files = ['stat', 'status', 'io'].map((name) => readFile(`/proc/${pid}/${name}`, 'utf8'))
  const [stat, status, io] = await Promise.all(files)
  return parseUsage(stat, status, io)
}

/** Takes the figures out of the three files. */
export function parseUsage(stat: string, status: string, io: string): Usage {
  // The second field, a name in brackets, may hold blanks and brackets itself.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [user, system] = [fields[11], fields[12]].map(Number)
  return {
    cpu: (user + system) / TICKS,
    peak: Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024,
    written: Number(/^write_bytes: (\d+)$/m.exec(io)?.[1]),
  }
}
