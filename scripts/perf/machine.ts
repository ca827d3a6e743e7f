import { cpus, loadavg, release, totalmem } from 'node:os'
import { succeed } from './process.ts'

/** The machine of the figures. Absolute figures mean nothing without it. */
export interface Machine {
  /** When the run began, ISO 8601. */
  date: string
  cpu: string
  cores: number
  /** Bytes. */
  memory: number
  kernel: string
  /** Processes that wanted a core when the run began: well below 1, or the figures are noisy. */
  load: number
  /** Type of the file system that held sources and targets. */
  fileSystem: string
  qemuImg: string
  fio: string
  node: string
}

/** @param dir a directory of the file system that is measured */
export async function describeMachine(dir: string, signal: AbortSignal): Promise<Machine> {
  const ask = async (...command: string[]) => (await succeed(command, signal)).stdout.trim()
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0].model.trim(),
    cores: cpus().length,
    memory: totalmem(),
    kernel: release(),
    load: loadavg()[0],
    fileSystem: (await ask('df', '--output=fstype', dir)).split('\n')[1],
    qemuImg: /version (\S+)/.exec(await ask('qemu-img', '--version'))?.[1] ?? 'unknown',
    fio: await ask('fio', '--version'),
    node: process.version,
  }
}
