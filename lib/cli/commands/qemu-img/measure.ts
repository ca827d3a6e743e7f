import { parseArguments, wantsJson } from '../../../qemu-img/arguments.ts'
import type { QemuImgCommand } from '../../../qemu-img/command.ts'
import { formatJson } from '../../../qemu-img/json.ts'
import type { Measure } from '../../../qemu-img/measure/measure.ts'
import { measureImage, measureSize } from '../../../qemu-img/measure/measure-image.ts'
import { snapshotChoice } from '../../../qemu-img/measure/snapshot-choice.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { sizeArgument } from '../../../qemu-img/sizes.ts'

const HELP = `Usage: qcow2-backup measure [options] --size SIZE
       qcow2-backup measure [options] FILE

Calculates the size of an image of an empty disk, or of a copy of an image, as qemu-img measure
does: the same output, byte for byte.

Options:
  --size SIZE              of the empty disk
  -O raw|qcow2             the new image's format (default: raw)
  -o NAME=VALUE,...        its options, as qemu-img create takes them: cluster_size, refcount_bits,
                           compat, extended_l2, preallocation, backing_file and others
  --output human|json      how to print it (default: human)
  -f FORMAT                FILE's format, raw or qcow2 (default: by its first bytes)
  -l SNAPSHOT              measure FILE as it was in this internal snapshot: its id or name, or
                           snapshot.id=ID,snapshot.name=NAME
  -U, --force-share        also read an image that other processes have open
  --allow-path DIR         let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT  the format of a backing file whose image does not record it
  -h, --help               display this help

Exit status: 0 done, 1 failed.

Examples:
  qcow2-backup measure -O qcow2 --size 1T
  qcow2-backup measure -O qcow2 -o cluster_size=2M --output=json disk.raw
`

const OPTIONS = [
  { name: 'f', letter: 'f', value: true },
  { name: 'l', letter: 'l', value: true },
  { name: 'o', letter: 'o', value: true },
  { name: 'O', letter: 'O', value: true },
  { name: 'output', value: true },
  { name: 'size', value: true },
] as const

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, { stdout, stderr, signal }) {
    const args = parseArguments('measure', argv, OPTIONS)
    const json = wantsJson(args)
    const text = args.get('size')
    const size = text === undefined ? undefined : sizeArgument(text, 'image size')
    const choice = args.get('l')
    const snapshot = choice === undefined ? undefined : snapshotChoice(choice)
    const name = onlyName(args.operands)
    if (name === undefined && (args.has('f') || args.has('l'))) {
      throw new QemuImgError('--image-opts, -f, and -l require a filename argument.')
    }
    if (name !== undefined && size !== undefined) {
      throw new QemuImgError('--size N cannot be used together with a filename.')
    }
    const outputOptions = args.options.flatMap(({ name, value }) => (name === 'o' ? [value] : []))
    const target = { outputFormat: args.get('O'), outputOptions }
    const source = { format: args.get('f'), ...args.access, warn: stderr, snapshot, signal }
    let measure: Measure
    if (name !== undefined) measure = await measureImage(name, { ...source, ...target })
    else if (size !== undefined) measure = await measureSize(size, target)
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
