import { OUTPUT, parseArguments, sizeOption, wantsJson } from '../../../qemu-img/arguments.ts'
import type { QemuImgCommand } from '../../../qemu-img/command.ts'
import type { OptionSpec } from '../../../qemu-img/getopt.ts'
import { formatJson } from '../../../qemu-img/json.ts'
import { isOptionList } from '../../../qemu-img/measure/create-options.ts'
import type { Measure } from '../../../qemu-img/measure/measure.ts'
import { measureImage, measureSize } from '../../../qemu-img/measure/measure-image.ts'
import { snapshotChoice } from '../../../qemu-img/measure/snapshot-choice.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { sizeArgument } from '../../../qemu-img/sizes.ts'
import { hasRewrittenOptions, since } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup measure [options] --size SIZE
       qcow2-backup measure [options] FILE

Calculates the size of an image of an empty disk, or of a copy of an image, as qemu-img measure
does: the same output, byte for byte.

Options:
  -s, --size SIZE          of the empty disk
  -O, --target-format raw|qcow2  the new image's format (default: raw)
  -o, --options NAME=VALUE,...  its options, as qemu-img create takes them: cluster_size, refcount_bits,
                           compat, extended_l2, preallocation, backing_file and others
  --output human|json      how to print it (default: human)
  -f, --format FORMAT      FILE's format, raw or qcow2 (default: by its first bytes)
  -l, --snapshot SNAPSHOT  measure FILE as it was in this internal snapshot: its id or name, or
                           snapshot.id=ID,snapshot.name=NAME
  -U, --force-share        also read an image that other processes have open
  --qemu-version X.Y       the options and messages of that version of qemu-img (default: the newest
                           known)
  --allow-path DIR         let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT  the format of a backing file whose image does not record it
  -h, --help               display this help

Exit status: 0 done, 1 failed.

Examples:
  qcow2-backup measure -O qcow2 --size 1T
  qcow2-backup measure -O qcow2 -o cluster_size=2M --output=json disk.raw
`

/** Its name in messages. */
const SIZE = 'image size'

const longIn = hasRewrittenOptions
const value = true

const OPTIONS: readonly OptionSpec[] = [
  { name: 'target-format', letter: 'O', value, longIn },
  { name: 'options', letter: 'o', value, longIn, judge: requireOptionList },
  { name: 'target-format-options', means: 'options', value, longIn: since(10, 1) },
  { name: 'format', letter: 'f', value, longIn },
  { name: 'source-format', means: 'format', value, longIn: since(10, 1) },
  { name: 'source-image-opts', means: 'image-opts', longIn: since(10, 1) },
  { name: 'snapshot', letter: 'l', value, longIn, judge: (text) => void snapshotChoice(text) },
  sizeOption({ name: 'size', letter: 's', letterIn: since(10, 1) }, SIZE),
  OUTPUT,
]

/** As given; each list is parsed by itself. */
function requireOptionList(list: string): void {
  if (!isOptionList(list)) throw new QemuImgError(`Invalid option list: ${list}`)
}

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, { stdout, stderr, signal }) {
    const args = parseArguments('measure', argv, OPTIONS, { warn: stderr })
    const { version } = args
    const json = wantsJson(args)
    const text = args.get('size')
    const size = text === undefined ? undefined : sizeArgument(text, SIZE, version)
    const choice = args.get('snapshot')
    const snapshot = choice === undefined ? undefined : snapshotChoice(choice)
    const name = onlyName(args.operands)
    if (name === undefined && (args.has('format') || args.has('snapshot'))) {
      throw new QemuImgError('--image-opts, -f, and -l require a filename argument.')
    }
    if (name !== undefined && size !== undefined) {
      throw new QemuImgError('--size N cannot be used together with a filename.')
    }
    const outputOptions = args.options.flatMap(({ name, value }) =>
      name === 'options' ? [value] : [],
    )
    const target = { outputFormat: args.get('target-format'), outputOptions }
    const source = { format: args.get('format'), ...args.access, warn: stderr, snapshot, signal }
    let measure: Measure
    if (name !== undefined) measure = await measureImage(name, { ...source, ...target }, version)
    else if (size !== undefined) measure = await measureSize(size, target, version)
    else throw new QemuImgError('Either --size N or one filename must be specified.')
    await stdout(json ? toJson(measure) : toText(measure))
    return 0
  },
}

function onlyName(operands: readonly string[]): string | undefined {
  if (operands.length > 1) throw new QemuImgError('At most one filename argument is allowed.')
  return operands[0]
}

function toJson({ bitmaps, required, fullyAllocated }: Measure): string {
  return formatJson({ bitmaps, required, 'fully-allocated': fullyAllocated })
}

function toText({ bitmaps, required, fullyAllocated }: Measure): string {
  const lines = [`required size: ${required}`, `fully allocated size: ${fullyAllocated}`]
  if (bitmaps !== undefined) lines.push(`bitmaps size: ${bitmaps}`)
  return `${lines.join('\n')}\n`
}
