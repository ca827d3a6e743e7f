import { BackupError } from '../../../errors.ts'
import type { DirtyRun } from '../../../format/qcow2/bits.ts'
import {
  type BitmapOperation,
  BitmapOperationError,
  editBitmap,
} from '../../../maintain/edit-bitmap.ts'
import { type BitmapInfo, listBitmaps, readBitmap } from '../../../maintain/list-bitmaps.ts'
import type { ControlOptions } from '../../../options.ts'
import { type Arguments, parseArguments, sizeOption } from '../../../qemu-img/arguments.ts'
import type { CommandIo, QemuImgCommand } from '../../../qemu-img/command.ts'
import type { GivenOption } from '../../../qemu-img/getopt.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { sizeArgument } from '../../../qemu-img/sizes.ts'
import { describeImageError, describeOpenError } from '../../../qemu-img/strerror.ts'
import { since } from '../../../qemu-img/version.ts'
import { formatSize } from '../../../units.ts'
import { humanLines } from '../../print-result.ts'
import { openProgress, type ProgressDisplay } from '../../progress-display.ts'

const HELP = `Usage: qcow2-backup bitmap OPERATION... [options] FILE BITMAP
       qcow2-backup bitmap list [--json] [-U] [--progress json | --no-progress] FILE
       qcow2-backup bitmap show [-U] [--progress json | --no-progress] FILE BITMAP

Changes a persistent dirty bitmap of a qcow2 image, as qemu-img bitmap does, except that either all
operations are done or none. The image is checked first: a corrupt one is not written to.

Operations, done in their order:
  --add                    add it, with no bit set, recording writes
  --remove                 remove it, also one that is inconsistent
  --remove-all             remove every bitmap; alone, it takes no BITMAP
  --clear                  clear all its bits
  --enable                 record writes from now on
  --disable                stop recording
  --merge SOURCE           set the bits that are set in bitmap SOURCE, of FILE or the file of -b

Options:
  -g, --granularity SIZE   with --add: bytes that one bit stands for, 512 to 2G (default: the cluster
                           size, but at least 4K and at most 64K)
  -b, --source-file FILE   with --merge: the image that holds SOURCE
  -F, --source-format FORMAT  that image's format (default: by its first bytes)
  -f, --format FORMAT      the format of FILE: qcow2
  --qemu-version X.Y       the options and messages of that version of qemu-img (default: the newest
                           known)
  --progress json          print progress on stderr as lines of JSON
  --no-progress            no progress bar on a terminal
  -h, --help               display this help

Exit status: 0 done, 1 not done.

Examples:
  qcow2-backup bitmap --add disk.qcow2 monday
  qcow2-backup bitmap --add --disable --merge monday --merge tuesday disk.qcow2 both
  qcow2-backup bitmap --merge monday -b overlay.qcow2 -F qcow2 base.qcow2 monday
  qcow2-backup bitmap list disk.qcow2
  qcow2-backup bitmap show disk.qcow2 monday
`

/** Beside qemu-img's, which shows none. */
const PROGRESS_OPTIONS = [
  { name: 'progress', value: true, ours: true },
  { name: 'no-progress', ours: true },
] as const

/** Its name in messages. */
const GRANULARITY = 'granularity'

const hasRemoveAll = since(11, 0)

const OPTIONS = [
  ...PROGRESS_OPTIONS,
  { name: 'add' },
  { name: 'remove' },
  { name: 'remove-all', longIn: hasRemoveAll },
  { name: 'clear' },
  { name: 'enable' },
  { name: 'disable' },
  { name: 'merge', value: true },
  sizeOption({ name: 'granularity', letter: 'g' }, GRANULARITY),
  { name: 'source-file', letter: 'b', value: true },
  { name: 'source-format', letter: 'F', value: true },
  { name: 'format', letter: 'f', value: true, longIn: since(10, 1) },
] as const

const NO_NAME = "Could not open '': The 'file' block driver requires a file name"

const KINDS = ['add', 'remove', 'remove-all', 'clear', 'enable', 'disable', 'merge'] as const
type Kind = (typeof KINDS)[number]

/** Subcommands besides the operations. */
const WORDS = ['list', 'show'] as const

const LIST_OPTIONS = [
  ...PROGRESS_OPTIONS,
  { name: 'json' },
  { name: 'force-share', letter: 'U' },
] as const

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, io) {
    const word = WORDS.find((one) => asksFor(one, argv))
    if (word === 'list') {
      await io.stdout(await list(argv, io))
      return 0
    }
    if (word === 'show') {
      await show(argv, io)
      return 0
    }
    const args = parseArguments('bitmap', argv, OPTIONS, {
      forceShare: false,
      warn: io.stderr,
    })
    const operations = operationsOf(args)
    const [path, name = ''] = args.operands
    requireFormat(path, args.get('format'))
    await inQemusWords(path, name, () =>
      withProgress(args, io, (control) => editBitmap(path, name, operations, control)),
    )
    return 0
  },
}

/** qemu-img has no such thing: there it would lack an operation. */
function asksFor(word: string, argv: readonly string[]): boolean {
  return (
    argv.includes(word) && !argv.some((argument) => argument.startsWith('--') && isKind(argument))
  )
}

function isKind(argument: string): boolean {
  return KINDS.includes(argument.slice(2).split('=')[0] as Kind)
}

function operationsOf(args: Arguments): BitmapOperation[] {
  const given = args.options.filter(({ name }) => KINDS.includes(name as Kind))
  const granularity = args.get('granularity')
  const size = granularity === undefined ? 0n : sizeArgument(granularity, GRANULARITY, args.version)
  if (given.length === 0) {
    const remove = hasRemoveAll(args.version) ? '--remove, --remove-all' : '--remove'
    const all = `--add, ${remove}, --clear, --enable, --disable, or --merge`
    throw new QemuImgError(`Need at least one of ${all}`)
  }
  if (granularity !== undefined && !args.has('add')) {
    throw new QemuImgError('granularity only supported with --add')
  }
  const from = args.get('source-file')
  if (args.has('source-format') && from === undefined) {
    throw new QemuImgError('-F only supported with -b')
  }
  if (from !== undefined && !args.has('merge')) {
    throw new QemuImgError('Merge bitmap source file only supported with --merge')
  }
  requireOperands(args, given)
  const format = formatOf(args.get('source-format'), from ?? '')
  return given.map(({ name, value }): BitmapOperation => {
    const kind = name as Kind
    if (kind === 'merge') return { kind, source: value, from, format }
    // 0 is not a granularity, nor is a value above 32 bits.
    if (kind === 'add') return { kind, granularity: size === 0n ? undefined : Number(size) }
    return { kind }
  })
}

/** All bitmaps are removed without naming one; every other operation needs a name. */
function requireOperands({ operands }: Arguments, given: readonly GivenOption[]): void {
  if (given.every(({ name }) => name === 'remove-all')) {
    if (operands.length !== 1) throw new QemuImgError('Expecting filename')
  } else if (operands.length !== 2) {
    throw new QemuImgError('Expecting filename and bitmap name')
  }
}

function formatOf(text: string | undefined, path: string): 'raw' | 'qcow2' | undefined {
  if (text === undefined || text === 'raw' || text === 'qcow2') return text
  throw new QemuImgError(`Could not open '${path}': Unknown driver '${text}'`)
}

function requireFormat(path: string, format: string | undefined): void {
  if (formatOf(format, path) !== 'raw') return
  throw new QemuImgError(`Could not open '${path}': raw images hold no bitmaps`)
}

/** @throws QemuImgError if the image or an operation does not allow it */
async function inQemusWords(
  path: string,
  bitmap: string,
  edit: () => Promise<void>,
): Promise<void> {
  try {
    await edit()
  } catch (error) {
    if (!(error instanceof BackupError) || error.code === 'ABORTED') throw error
    if (error instanceof BitmapOperationError) {
      const what = `Operation ${error.operation} on bitmap ${bitmap} failed`
      throw new QemuImgError(`${what}: ${describeImageError(error)}`, 1, { cause: error })
    }
    // FILE, or that of -b.
    if (error.code === 'USAGE' && (error.argument === 'image' || error.argument === 'from')) {
      throw new QemuImgError(NO_NAME, 1, { cause: error })
    }
    const why =
      error.code === 'IO' && error.what !== ''
        ? describeOpenError(error.what, error)
        : describeImageError(error)
    throw new QemuImgError(`Could not open '${error.what || path}': ${why}`, 1, { cause: error })
  }
}

async function list(argv: readonly string[], io: CommandIo): Promise<string> {
  const args = parseArguments('bitmap list', argv, LIST_OPTIONS)
  const [word, path] = args.operands
  if (word !== 'list' || args.operands.length !== 2) {
    throw new QemuImgError('Expecting one image file name')
  }
  const { forceShare } = args.access
  const bitmaps = await withProgress(args, io, (control) =>
    listBitmaps(path, { forceShare, ...control }),
  )
  if (args.has('json')) return `${JSON.stringify(bitmaps)}\n`
  return humanLines(bitmaps.length === 0 ? ['no bitmaps'] : bitmaps.map(describe))
}

function describe({ name, granularity, recording, inconsistent, dirtyBytes }: BitmapInfo): string {
  const state = inconsistent ? 'inconsistent' : recording ? 'recording' : 'disabled'
  const dirty = dirtyBytes === null ? '' : `, ${formatSize(dirtyBytes)} dirty`
  return `${name}: ${state}, ${formatSize(granularity)} a bit${dirty}`
}

/** A JSON array of the bitmap's dirty and clean runs, one to a line. */
async function show(argv: readonly string[], io: CommandIo): Promise<void> {
  const args = parseArguments('bitmap show', argv, LIST_OPTIONS)
  const [word, path, name] = args.operands
  if (word !== 'show' || args.operands.length !== 3) {
    throw new QemuImgError('Expecting filename and bitmap name')
  }
  let before = '['
  const { forceShare } = args.access
  await withProgress(args, io, async (control, display) => {
    const take = async (runs: readonly DirtyRun[]) => {
      const text = before + runs.map((run) => JSON.stringify(run)).join(',\n ')
      before = ',\n '
      await display.around(() => io.stdout(text))
    }
    await readBitmap(path, name, take, { forceShare, ...control })
  })
  await io.stdout(before === '[' ? '[]\n' : ']\n')
}

/** Shows how far work is, as our own commands do. */
async function withProgress<T>(
  args: Arguments,
  io: CommandIo,
  work: (control: ControlOptions, display: ProgressDisplay) => Promise<T>,
): Promise<T> {
  const form = args.get('progress')
  if (form !== undefined && form !== 'json') {
    throw new QemuImgError(`--progress: '${form}' is not one of json`)
  }
  const { stderr, canDraw = false, columns = 80, signal } = io
  const mode = args.has('no-progress') ? false : form
  const display = openProgress(mode, { stderr, canDraw, columns })
  try {
    return await work({ signal, onProgress: display.update }, display)
  } finally {
    display.close()
  }
}
