import { createHash } from 'node:crypto'
import { hostname } from 'node:os'
import { readFile, readlink } from '../../files.ts'
import { RUN_PREFIX } from '../machine.ts'

/**
 * The run that something belongs to, and the process that it is of. Everything that a run makes in
 * libvirt or on disk bears it in its name, so that what a killed run left can be told from what one
 * that goes on needs.
 */
export interface Owner {
  run: string
  /** Its name, and a part of a hash of its machine id: names of hosts are often the same. */
  host: string
  /** Of the boot of the host and the namespace of process ids. */
  boot: string
  pid: number
  /** When the process began, in ticks since the boot: ids are used again. */
  start: string
}

const MARK = new RegExp(
  `${RUN_PREFIX}([0-9a-f]{12})\\.([A-Za-z0-9-]{1,16})\\.([0-9a-f]{8})\\.([0-9]{1,10})\\.([0-9]{1,20})(?![0-9])`,
)

/** Runs of this process that have not ended. */
const active = new Set<string>()

/**
 * Marks a run as going on until `end` is called.
 * @returns its mark, for names
 */
export async function beginRun(run: string): Promise<{ mark: string; end: () => void }> {
  const { host, boot, pid, start } = await thisProcess()
  active.add(run)
  const end = () => active.delete(run)
  return { mark: `${RUN_PREFIX}${run}.${host}.${boot}.${pid}.${start}`, end }
}

/** The owner named in a text, such as a path; undefined if it names none. */
export function ownerIn(text: string): (Owner & { mark: string }) | undefined {
  const found = MARK.exec(text)
  if (!found) return undefined
  const [mark, run, host, boot, pid, start] = found
  return { mark, run, host, boot, pid: Number(pid), start }
}

/**
 * Whether a run goes on. That of a process of another host or container cannot be known, so it counts
 * as going on; one from before this host's reboot has ended.
 */
export async function isGoingOn(owner: Owner): Promise<boolean> {
  const own = await thisProcess()
  if (owner.host !== own.host) return true
  if (owner.boot !== own.boot) return owner.boot.slice(0, 4) === own.boot.slice(0, 4)
  if (owner.pid === own.pid && owner.start === own.start) return active.has(owner.run)
  return (await startOf(owner.pid)) === owner.start
}

/** As messages name it. */
export function describeOwner({ run, host, pid }: Owner): string {
  return `run ${run} of process ${pid} on host ${host.replace(/-[^-]*$/, '')}`
}

async function thisProcess(): Promise<Omit<Owner, 'run'>> {
  const boot = await readFile('/proc/sys/kernel/random/boot_id')
  const namespace = await readlink('/proc/self/ns/pid')
  const machine = await readFile('/etc/machine-id').catch(() => Buffer.alloc(0))
  const name = hostname()
    .split('.')[0]
    .replace(/[^A-Za-z0-9-]/g, '-')
    .slice(0, 11)
  return {
    host: `${name}-${digest(machine)}`,
    boot: digest(boot) + digest(Buffer.from(namespace)),
    pid: process.pid,
    start: (await startOf(process.pid)) ?? '0',
  }
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 4)
}

/** When a process began; undefined if there is none (proc_pid_stat(5), fields 3 and 22). */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`).catch(() => undefined)
  // The name of the program, in parentheses, may hold anything.
  const fields = stat?.toString('latin1').split(') ').pop()?.split(' ') ?? []
  // One that has ended and whose parent did not look yet.
  return /^[ZX]/.test(fields[0]) ? undefined : fields[19]
}
