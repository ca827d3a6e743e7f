import { stat } from 'node:fs/promises'
import type { Timed } from './measure.ts'
import { run, succeed } from './process.ts'

const MIB = 2 ** 20

/**
 * The bound of a copy: fio reading a file and writing as many bytes to another at once, O_DIRECT,
 * 1 MiB at a time, ordered by nothing and looking at nothing. Deeper queues than these did not make
 * it faster. The target gets its length first, which suits ext4 better than to grow.
 * @param source the file to read, O_DIRECT
 * @param scattered in pieces of 64 KiB in any order, into a target that is there already
 * @returns the run for a target; its wall in seconds is that of the slower of the two jobs, without
 * the start of fio itself
 */
export async function fioCopy(
  source: string,
  signal: AbortSignal,
  scattered = false,
): Promise<(target: string) => Timed<number>> {
  const bytes = Math.floor((await stat(source)).size / MIB) * MIB
  const engine = await workingEngine(source, signal)
  const job = (name: string, file: string, depth: number) => [
    `--name=${name}`,
    `--rw=${scattered ? 'rand' : ''}${name}`,
    `--filename=${file}`,
    `--size=${bytes}`,
    `--iodepth=${depth}`,
  ]
  return (target) => {
    const command = [
      'fio',
      '--output-format=json',
      '--thread',
      `--ioengine=${engine}`,
      '--direct=1',
      `--bs=${scattered ? '64k' : '1M'}`,
      ...job('read', source, scattered ? 64 : 8),
      ...job('write', target, scattered ? 16 : 4),
      ...(scattered ? [] : ['--fallocate=truncate']),
      '--end_fsync=1',
    ]
    return { words: command.join(' '), run: () => slowerJob(command, signal) }
  }
}

/**
 * The bound of a comparison: fio reading files at once, O_DIRECT, 1 MiB at a time.
 * @returns its wall in seconds is that of the slowest job, without the start of fio itself
 */
export async function fioRead(files: string[], signal: AbortSignal): Promise<Timed<number>> {
  const engine = await workingEngine(files[0], signal)
  const jobs: string[] = []
  for (const file of files) {
    // Not a byte more than there is: fio fills up a file that is shorter than `size`.
    const bytes = Math.floor((await stat(file)).size / MIB) * MIB
    jobs.push('--name=read', '--rw=read', `--filename=${file}`, `--size=${bytes}`, '--iodepth=8')
  }
  const how = [`--ioengine=${engine}`, '--direct=1', '--bs=1M', '--readonly']
  const command = ['fio', '--output-format=json', '--thread', ...how, ...jobs]
  return { words: command.join(' '), run: () => slowerJob(command, signal) }
}

async function slowerJob(command: string[], signal: AbortSignal): Promise<number> {
  const { stdout } = await succeed(command, signal)
  const { jobs } = JSON.parse(stdout) as { jobs: { job_runtime: number }[] }
  return Math.max(...jobs.map((job) => job.job_runtime)) / 1000
}

/** io_uring, or libaio where containers or administrators refuse that. */
async function workingEngine(source: string, signal: AbortSignal): Promise<string> {
  const probe = ['--name=probe', '--rw=read', `--filename=${source}`, '--size=4k', '--direct=1']
  const { status } = await run(['fio', '--ioengine=io_uring', ...probe], signal)
  return status === 0 ? 'io_uring' : 'libaio'
}
