import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { abortedError, BackupError, throwIfAborted } from '../../errors.ts'
import { type FileHandle, open, unlink } from '../../files.ts'
import { log } from '../../log.ts'

export const DEFAULT_CONNECT = 'qemu:///system'

/** Time limit of a command; libvirt itself waits up to 30 s for another change to the domain. */
const LIMIT_MS = 120_000

/** Far more than the XML of a domain with many disks. */
const MAX_OUTPUT = 64 * 2 ** 20

const INSTALL =
  'is not installed; libvirt domains are driven through it: install libvirt-clients (Debian, Ubuntu) or ' +
  'libvirt-client (Fedora, RHEL, SUSE)'

/** A command of virsh that failed. */
export class VirshError extends BackupError {
  /** What virsh said, for those who look for a message. */
  readonly said: string

  constructor(what: string, command: string, said: string) {
    const lines = said
      .split('\n')
      .map((line) => line.replace(/^error: /, '').trim())
      .filter((line) => line !== '')
    super('IO', what, lines.length ? lines.join('; ') : `virsh ${command} failed without a message`)
    this.said = said
  }
}

export interface VirshOptions {
  signal?: AbortSignal
  /** Milliseconds, after which it is killed. */
  limitMs?: number
  /** What it reads from files; each is at `documentPath`. */
  documents?: readonly string[]
  /** It does not keep this process from ending. */
  isAside?: boolean
}

/** Runs `virsh`, which every host with libvirt has, and which speaks every version's protocol. */
export class Virsh {
  readonly connect: string
  /** As messages name what it is about. */
  readonly title: string

  constructor(connect: string, title: string) {
    this.connect = connect
    this.title = title
  }

  /** The libvirt daemon, and with it QEMU, is on this host. */
  get isLocal(): boolean {
    return /^[a-z0-9+.-]+:\/\/\//i.test(this.connect)
  }

  /**
   * Runs a command to its end.
   * @param args as `--option=value`, so that no value is taken for an option
   * @returns its stdout
   * @throws VirshError if it fails; BackupError IO if it cannot be run or takes too long, ABORTED
   */
  async run(args: readonly string[], options: VirshOptions = {}): Promise<string> {
    const files: FileHandle[] = []
    try {
      for (const text of options.documents ?? []) files.push(await fileWith(text))
      return await this.#spawn(args, options, files)
    } finally {
      for (const file of files) await file.close()
    }
  }

  #spawn(
    args: readonly string[],
    options: VirshOptions,
    files: readonly FileHandle[],
  ): Promise<string> {
    const { signal, limitMs = LIMIT_MS, isAside = false } = options
    throwIfAborted(signal, this.title)
    const [command] = args
    return new Promise((resolve, reject) => {
      // In a process group of its own: Ctrl-C is for us, who clean up with more commands.
      const child = spawn('virsh', ['-q', '-c', this.connect, ...args], {
        stdio: ['ignore', 'pipe', 'pipe', ...files.map(({ fd }) => fd)],
        detached: true,
        env: { ...process.env, LC_ALL: 'C' },
      }) as ChildProcessByStdio<null, Readable, Readable>
      let failure: BackupError | undefined
      const end = (error: BackupError): void => {
        failure ??= error
        killGroup(child)
      }
      const printed = { stdout: '', stderr: '' }
      for (const name of ['stdout', 'stderr'] as const) {
        child[name].setEncoding('utf8').on('data', (text: string) => {
          printed[name] += text
          if (printed[name].length > MAX_OUTPUT) {
            end(new BackupError('IO', this.title, `virsh ${command} printed too much`))
          }
        })
      }
      const tooLong = `virsh ${command} did not end within ${limitMs / 1000} s`
      const timer = setTimeout(() => end(new BackupError('IO', this.title, tooLong)), limitMs)
      const onAbort = (): void => end(abortedError(this.title, signal!))
      if (isAside) {
        timer.unref()
        child.unref()
        for (const stream of [child.stdout, child.stderr]) (stream as Socket).unref()
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      const settle = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
      }
      child.on('error', (error: NodeJS.ErrnoException) => {
        settle()
        const why = error.code === 'ENOENT' ? INSTALL : `cannot be run: ${error.message}`
        reject(new BackupError('IO', 'virsh', why, { cause: error, errno: error.code }))
      })
      child.on('close', (status) => {
        settle()
        log('virsh', () => `${this.title}: ${command}: ${failure?.why ?? `status ${status}`}`)
        if (failure) reject(failure)
        else if (status === 0) resolve(printed.stdout)
        else reject(new VirshError(this.title, command, printed.stderr))
      })
    })
  }
}

/** The path under which a command finds a document. */
export function documentPath(index: number): string {
  return `/dev/fd/${FIRST_DOCUMENT + index}`
}

/** After stdin, stdout and stderr. */
const FIRST_DOCUMENT = 3

/** A file without a name, which nobody else reads and which is gone with the process. */
async function fileWith(text: string): Promise<FileHandle> {
  const path = join(tmpdir(), `qcow2-backup-xml-${randomBytes(8).toString('hex')}`)
  const file = await open(path, 'wx+', 0o600)
  try {
    await unlink(path)
    await file.writeFile(text)
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Kills it with what it started: ssh, for a remote host. */
function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended already.
  }
}

/** Whether a command failed with a certain message. */
export function saidBy(error: unknown, pattern: RegExp): RegExpExecArray | undefined {
  return error instanceof VirshError ? (pattern.exec(error.said) ?? undefined) : undefined
}
