import { notOneOf, OUTPUT, parseArguments, wantsJson } from '../../../qemu-img/arguments.ts'
import { isDirect } from '../../../qemu-img/cache.ts'
import { checkImage } from '../../../qemu-img/check/check-image.ts'
import { checkToJson, checkToText, repairedToText } from '../../../qemu-img/check/format.ts'
import type { ImageCheck } from '../../../qemu-img/check/result.ts'
import type { QemuImgCommand } from '../../../qemu-img/command.ts'
import type { OptionSpec } from '../../../qemu-img/getopt.ts'
import { formatJson } from '../../../qemu-img/json.ts'
import { QemuImgError, QemuImgUsageError } from '../../../qemu-img/messages.ts'
import { hasRewrittenOptions } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup check [options] FILE

Checks a qcow2 image for errors, as qemu-img check does: the same output, byte for byte. Findings are
printed on stderr, a line each; the summary on stdout.

Options:
  -f, --format FORMAT      the image's format (default: by its first bytes)
  --output human|json      how to print the summary (default: human)
  -r, --repair leaks|all   free leaked clusters, or repair all that can be repaired
  -q, --quiet              print nothing but errors
  -T, --cache CACHE        QEMU's cache mode; checked, without effect
  -U, --force-share        also read an image that other processes have open
  --qemu-version X.Y       print what that version of qemu-img prints (default: the newest known)
  --allow-path DIR         let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT  the format of a backing file whose image does not record it
  -h, --help               display this help

Exit status: 0 no errors, 1 the check failed, 2 the image is corrupt, 3 clusters are leaked,
63 not a format that can be checked.

Examples:
  qcow2-backup check backup.qcow2
  qcow2-backup check --output=json backup.qcow2
  qcow2-backup check -r leaks backup.qcow2
`

const REPAIR: OptionSpec = {
  name: 'repair',
  letter: 'r',
  value: true,
  judge(value, reading) {
    if (value === 'leaks' || value === 'all') return
    const words = "'leaks' or 'all'"
    if (hasRewrittenOptions(reading.version)) {
      throw notOneOf('--repair (-r)', words, value, reading)
    }
    throw new QemuImgUsageError(`Unknown option value for -r (expecting ${words}): ${value}`)
  },
}

const OPTIONS: readonly OptionSpec[] = [
  { name: 'format', letter: 'f', value: true },
  { name: 'cache', letter: 'T', value: true, longIn: hasRewrittenOptions },
  REPAIR,
  OUTPUT,
  { name: 'quiet', letter: 'q', longIn: hasRewrittenOptions },
]

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, io) {
    const args = parseArguments('check', argv, OPTIONS)
    const repair = args.get('repair') as 'leaks' | 'all' | undefined
    if (args.operands.length !== 1) throw args.usageError('Expecting one image file name')
    const json = wantsJson(args)
    const cache = args.get('cache')
    if (cache !== undefined && isDirect(cache) === undefined) {
      throw new QemuImgError(`Invalid source cache option: ${cache}`)
    }
    const say = (text: string) => (args.has('quiet') ? Promise.resolve() : io.stdout(text))
    const check = await checkImage(args.operands[0], {
      ...args.access,
      ...{ format: args.get('format'), repair },
      warn: io.stderr,
      signal: io.signal,
      onFinding: io.stderr,
      onRepaired: json ? undefined : (repaired) => say(repairedToText(repaired)),
    })
    await say(json ? formatJson(checkToJson(check)) : checkToText(check))
    return statusOf(check)
  },
}

function statusOf({ checkErrors, corruptions, leaks }: ImageCheck): number {
  if (checkErrors > 0) throw new QemuImgError('Check failed')
  if (corruptions > 0) return 2
  return leaks > 0 ? 3 : 0
}
