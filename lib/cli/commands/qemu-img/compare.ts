import type { Finding } from '../../../compare/compare.ts'
import { isBackupError } from '../../../errors.ts'
import { parseArguments } from '../../../qemu-img/arguments.ts'
import { isDirect } from '../../../qemu-img/cache.ts'
import { textOf } from '../../../qemu-img/chain-node.ts'
import type { CommandIo, QemuImgCommand } from '../../../qemu-img/command.ts'
import { compareImages } from '../../../qemu-img/compare/compare-images.ts'
import { QemuProgress } from '../../../qemu-img/compare/qemu-progress.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { strerror } from '../../../qemu-img/strerror.ts'
import { atLeast, hasRewrittenOptions } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup compare [options] FILE1 FILE2

Compares what a guest sees of two images, as qemu-img compare does: the same output, byte for byte.

Options:
  -f, --a-format FORMAT    the first image's format, raw or qcow2 (default: by its first bytes)
  -F, --b-format FORMAT    the second image's format
  -s, --strict             strict: sizes and what is allocated must be equal too
  -p, --progress           print progress
  -q, --quiet              print nothing but errors
  -T, --cache CACHE        none, off, directsync: read past the page cache, the default; writeback,
                           writethrough, unsafe: through it
  --snapshot NAME          the first image as it was at this internal snapshot, by its id or name
  --b-snapshot NAME        the same of the second image
  -U, --force-share        also read images that other processes have open
  --qemu-version X.Y       print what that version of qemu-img prints (default: the newest known)
  --allow-path DIR         let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT  the format of a backing file whose image does not record it
  -h, --help               display this help

Exit status: 0 the same, 1 different or wrong usage, 2 an image could not be opened, 3 its metadata
and 4 its data could not be read.

Examples:
  qcow2-backup compare -f raw -F qcow2 /dev/vg/disk backup.qcow2
  qcow2-backup compare -p --allow-path /srv/base overlay.qcow2 copy.qcow2
  qcow2-backup compare --snapshot before-update disk.qcow2 backup.qcow2
`

const OPTIONS = [
  { name: 'a-format', letter: 'f', value: true },
  { name: 'b-format', letter: 'F', value: true },
  { name: 'strict', letter: 's' },
  { name: 'cache', letter: 'T', value: true },
  { name: 'progress', letter: 'p' },
  { name: 'quiet', letter: 'q' },
].map((spec) => ({ ...spec, longIn: hasRewrittenOptions }))

const SNAPSHOTS = [
  { name: 'snapshot', value: true, ours: true },
  { name: 'b-snapshot', value: true, ours: true },
]

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, io) {
    const args = parseArguments('compare', argv, [...OPTIONS, ...SNAPSHOTS])
    if (args.operands.length !== 2) throw args.usageError('Expecting two image file names')
    const quiet = args.has('quiet')
    const say = (text: string) => (quiet ? Promise.resolve() : io.stdout(text))
    const progress = args.has('progress') && !quiet ? new QemuProgress() : undefined
    const [a, b] = args.operands
    try {
      const { finding } = await compareImages([a, b], {
        formats: [args.get('a-format'), args.get('b-format')],
        snapshots: [args.get('snapshot'), args.get('b-snapshot')],
        ...args.access,
        warn: io.stderr,
        signal: io.signal,
        strict: args.has('strict'),
        compressedFlag: atLeast(args.version, 8, 2),
        direct: directOf(args.get('cache')),
        onOpen: progress && (() => say(progress.start())),
        onTail: () => say('Warning: Image size mismatch!\n'),
        onEqual: progress && ((bytes, size) => say(progress.add(bytes, size))),
      }).catch((error) => {
        throw withStatus(error)
      })
      return await conclude(finding, [a, b], say, io)
    } finally {
      if (progress) await say('\n')
    }
  },
}

/** An error of any kind with the exit status that it has: 1 would say that the images differ. */
function withStatus(error: unknown): unknown {
  // Of opening an image.
  if (error instanceof QemuImgError) return new QemuImgError(error.message, 2, { cause: error })
  if (!isBackupError(error) || error.code === 'ABORTED') return error
  return new QemuImgError(`Error while comparing: ${error.message}`, 4, { cause: error })
}

function directOf(cache: string | undefined): boolean {
  if (cache === undefined) return true
  const direct = isDirect(cache)
  if (direct === undefined) throw new QemuImgError(`Invalid source cache option: ${cache}`, 2)
  return direct
}

/** Prints the finding; returns the exit status. */
async function conclude(
  finding: Finding | undefined,
  names: readonly [string, string],
  say: (text: string) => Promise<void>,
  io: CommandIo,
): Promise<number> {
  switch (finding?.kind) {
    case undefined:
      await say('Images are identical.\n')
      return 0
    case 'content':
      await say(`Content mismatch at offset ${finding.start}!\n`)
      return 1
    case 'sizes':
      await say('Strict mode: Image size mismatch!\n')
      return 1
    case 'status':
      await say(`Strict mode: Offset ${finding.start} block status mismatch!\n`)
      return 1
    case 'unknown':
      io.stderr(textOf(finding))
      throw new QemuImgError(`Sector allocation test failed for ${names[finding.side]}`, 3)
    case 'unreadable': {
      const where = `offset ${finding.start} of ${names[finding.side]}`
      throw new QemuImgError(
        `Error while reading ${where}: ${strerror(finding.errno) ?? finding.why}`,
        4,
      )
    }
  }
}
