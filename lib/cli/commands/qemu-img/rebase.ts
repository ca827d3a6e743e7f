import { isBackupError } from '../../../errors.ts'
import { rebaseImage } from '../../../maintain/rebase/rebase.ts'
import type { Progress } from '../../../progress.ts'
import { type Arguments, parseArguments } from '../../../qemu-img/arguments.ts'
import { isDirect } from '../../../qemu-img/cache.ts'
import type { CommandIo, QemuImgCommand } from '../../../qemu-img/command.ts'
import { QemuProgress } from '../../../qemu-img/compare/qemu-progress.ts'
import type { OptionSpec } from '../../../qemu-img/getopt.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { describeImageError } from '../../../qemu-img/strerror.ts'
import { hasRewrittenOptions, since } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup rebase [-u] -b BACKING [-F FORMAT] [options] FILE

Lets a qcow2 image build on another backing file, or on none, as qemu-img rebase does. What a guest would
see otherwise over BACKING is copied into FILE first, so that it sees the same. The header is changed
last, by one write of a sector: a run that ends before leaves FILE over its old backing file, with the same
content. No other process may have FILE open, or write to what it builds on.

Options:
  -b, --backing BACKING     the new backing file, by the name to record: relative to the directory of
                            FILE. '': it builds on nothing
  -F, --backing-format FMT  the format of BACKING, raw or qcow2; recorded too
  -u, --backing-unsafe      change only the name, for a backing file that was moved or renamed: neither
                            the old one nor the new one is opened
  -f, --format FORMAT       the format of FILE (default: by its first bytes)
  -c, --compress            refused without -u: what is copied is stored uncompressed
  -p, --progress            print progress
  -q, --quiet               print nothing but errors
  -t, --cache CACHE, -T, --backing-cache CACHE
                            QEMU's cache modes; checked, without effect: what is written is synced
  -U, --force-share         other processes may write to BACKING; the result may then be inconsistent
  --qemu-version X.Y        take the options of that version of qemu-img (default: the newest known)
  --allow-path DIR          let images name files below this directory too; repeatable, / allows all
  -h, --help                display this help

Exit status: 0 done, 1 not done.

Examples:
  qcow2-backup rebase -b base.qcow2 -F qcow2 overlay.qcow2
  qcow2-backup rebase -u -b disk.qcow2 -F qcow2 overlay.qcow2
  qcow2-backup rebase -b '' overlay.qcow2
`

const NOT_COMPRESSED =
  '-c is not supported: what is copied is stored uncompressed. Leave it out, or name the backing file with -u'

const longIn = hasRewrittenOptions

/** The format of the new backing file; not what our option of that name says in other commands. */
const NEW_FORMAT = { name: 'backing-format', means: 'new-format', value: true } as const

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', letter: 'f', value: true, longIn },
  { name: 'cache', letter: 't', value: true, longIn },
  { name: 'backing', letter: 'b', value: true, longIn },
  { ...NEW_FORMAT, letter: 'F', longIn },
  { ...NEW_FORMAT, letter: 'B', letterIn: since(10, 1), longIn: () => false },
  { name: 'backing-cache', letter: 'T', value: true, longIn },
  { name: 'backing-unsafe', letter: 'u', longIn },
  { name: 'compress', letter: 'c', letterIn: since(8, 2), longIn },
  { name: 'progress', letter: 'p', longIn },
  { name: 'quiet', letter: 'q', longIn },
]

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, io) {
    const args = parseArguments('rebase', argv, OPTIONS)
    if (args.operands.length !== 1) throw args.usageError('Expecting one image file name')
    const unsafe = args.has('backing-unsafe')
    if (!unsafe && !args.has('backing')) {
      throw args.usageError('Must specify backing file (-b) or use unsafe mode (-u)')
    }
    requireCache(args, 'cache', 'cache option')
    requireCache(args, 'backing-cache', 'source cache option')
    // Without copying there is nothing to compress.
    if (args.has('compress') && !unsafe) throw new QemuImgError(NOT_COMPRESSED)
    const [name] = args.operands
    const options = {
      ...{ format: args.get('format'), unsafe, ...args.access },
      ...{ warn: io.stderr, signal: io.signal },
    }
    const shown = args.has('progress') && !args.has('quiet') ? new ShownProgress(io) : undefined
    try {
      await shown?.start()
      const backing = { file: args.get('backing'), format: args.get('new-format') }
      await rebaseImage(name, backing, { ...options, onProgress: shown?.update })
      await shown?.complete()
    } catch (error) {
      throw inQemusWords(name, error)
    } finally {
      await shown?.end()
    }
    return 0
  },
}

/** How far it is, as qemu-img prints it: the first half is comparing, the second one copying. */
class ShownProgress {
  readonly #io: CommandIo
  readonly #progress = new QemuProgress()
  #percent = 0

  constructor(io: CommandIo) {
    this.#io = io
  }

  async start(): Promise<void> {
    await this.#io.stdout(this.#progress.start())
  }

  readonly update = ({ phase, position, size }: Progress): void => {
    if (size === 0 || (phase !== 'compare' && phase !== 'copy')) return
    void this.#show((phase === 'copy' ? 50 : 0) + (50 * position) / size)
  }

  async complete(): Promise<void> {
    await this.#show(100)
  }

  async end(): Promise<void> {
    await this.#io.stdout('\n')
  }

  async #show(percent: number): Promise<void> {
    const text = this.#progress.add(percent - this.#percent, 100)
    this.#percent = percent
    if (text !== '') await this.#io.stdout(text)
  }
}

function requireCache(args: Arguments, option: string, what: string): void {
  const cache = args.get(option)
  if (cache === undefined || isDirect(cache) !== undefined) return
  throw new QemuImgError(`Invalid ${what}: ${cache}`)
}

/** What qemu-img says of a failure, where it knows it. */
function inQemusWords(name: string, error: unknown): unknown {
  if (!isBackupError(error) || error.code === 'ABORTED') return error
  if (error instanceof QemuImgError) {
    // The option of that name says something else here.
    if (error.hint !== 'backingFormat') return error
    const message = `${error.message}; record it with rebase -u -b ... -F FORMAT first`
    return new QemuImgError(message, 1, { code: error.code })
  }
  const message = error.qemu ?? `Could not rebase '${name}': ${describeImageError(error)}`
  return new QemuImgError(message, 1, { cause: error })
}
