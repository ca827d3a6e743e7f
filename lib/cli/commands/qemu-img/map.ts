import {
  type Arguments,
  OUTPUT,
  parseArguments,
  sizeOption,
  wantsJson,
} from '../../../qemu-img/arguments.ts'
import type { CommandIo, QemuImgCommand } from '../../../qemu-img/command.ts'
import {
  HUMAN_HEADER,
  humanRow,
  JSON_END,
  JSON_SEPARATOR,
  JSON_START,
  jsonEntry,
  NOT_IN_PLACE,
} from '../../../qemu-img/map/format.ts'
import type { MapEntry } from '../../../qemu-img/map/map.ts'
import { mapImage } from '../../../qemu-img/map/map-image.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { sizeArgument } from '../../../qemu-img/sizes.ts'
import { atLeast } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup map [options] FILE

Prints where the data of a disk is stored, as qemu-img map does: the same output, byte for byte.

Options:
  -f, --format FORMAT       the image's format, raw or qcow2 (default: by its first bytes)
  --output human|json       how to print it (default: human, which only lists stored data)
  -s, --start-offset SIZE   guest offset to start at
  -l, --max-length SIZE     guest bytes to map
  --snapshot NAME           the disk as it was at this internal snapshot, by its id or name
  -U, --force-share         also read an image that other processes have open
  --qemu-version X.Y        print what that version of qemu-img prints (default: the newest known)
  --allow-path DIR          let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT   the format of a backing file whose image does not record it
  -h, --help                display this help

Exit status: 0 done, 1 failed.

Examples:
  qcow2-backup map --output=json disk.qcow2
  qcow2-backup map --allow-path /srv/base -s 1G -l 64M overlay.qcow2
`

/** Names of these sizes in messages. */
const START = 'start offset'
const LENGTH = 'max length'

const OPTIONS = [
  { name: 'format', letter: 'f', value: true },
  OUTPUT,
  sizeOption({ name: 'start-offset', letter: 's' }, START),
  sizeOption({ name: 'max-length', letter: 'l' }, LENGTH),
  { name: 'snapshot', value: true, ours: true },
] as const

type Entries = AsyncIterable<readonly MapEntry[]>

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, io) {
    const args = parseArguments('map', argv, OPTIONS, { warn: io.stderr })
    const start = size(args, 'start-offset', START)
    const length = size(args, 'max-length', LENGTH)
    const [name] = args.operands
    if (args.operands.length !== 1) throw args.usageError('Expecting one image file name')
    const json = wantsJson(args)
    const options = {
      format: args.get('format'),
      snapshot: args.get('snapshot'),
      ...args.access,
      warn: io.stderr,
      signal: io.signal,
    }
    const onOpen = () => io.stdout(json ? JSON_START : HUMAN_HEADER)
    const entries = mapImage(name, {
      ...options,
      start: toNumber(start),
      length: toNumber(length),
      onOpen,
    })
    const toEntry = (entry: MapEntry) => jsonEntry(entry, atLeast(args.version, 8, 2), start)
    if (json) await printJson(entries, toEntry, io)
    else await printRows(entries, io)
    return 0
  },
}

function size(args: Arguments, option: string, what: string): bigint | undefined {
  const text = args.get(option)
  return text === undefined ? undefined : sizeArgument(text, what, args.version)
}

function toNumber(size: bigint | undefined): number | undefined {
  return size === undefined ? undefined : Number(size)
}

async function printJson(
  entries: Entries,
  toEntry: (entry: MapEntry) => string,
  io: CommandIo,
): Promise<void> {
  let separator = ''
  try {
    for await (const batch of entries) {
      const text = batch.map(toEntry).join(JSON_SEPARATOR)
      await io.stdout(separator + text)
      separator = JSON_SEPARATOR
    }
  } catch (error) {
    // As if another entry followed.
    if (separator !== '') await io.stdout(separator)
    throw error
  }
  await io.stdout(JSON_END)
}

async function printRows(entries: Entries, io: CommandIo): Promise<void> {
  for await (const batch of entries) {
    let text = ''
    for (const entry of batch) {
      if (entry.data && entry.offset === undefined) {
        await io.stdout(text)
        throw new QemuImgError(NOT_IN_PLACE)
      }
      text += humanRow(entry)
    }
    await io.stdout(text)
  }
}
