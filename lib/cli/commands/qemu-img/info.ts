import { type Arguments, OUTPUT, parseArguments, wantsJson } from '../../../qemu-img/arguments.ts'
import { isDirect } from '../../../qemu-img/cache.ts'
import type { QemuImgCommand } from '../../../qemu-img/command.ts'
import { backingChainInfo, type DescribeOptions, imageInfo } from '../../../qemu-img/info/info.ts'
import { infoToJson } from '../../../qemu-img/info/json.ts'
import { chainToText, infoToText } from '../../../qemu-img/info/text.ts'
import { formatJson } from '../../../qemu-img/json.ts'
import { QemuImgError } from '../../../qemu-img/messages.ts'
import { hasDraftOptions, since } from '../../../qemu-img/version.ts'

const HELP = `Usage: qcow2-backup info [options] FILE

Describes a raw or qcow2 image, as qemu-img info does: the same output, byte for byte.

Options:
  -f, --format FORMAT      the image's format, raw or qcow2 (default: by its first bytes)
  --output human|json      how to print it (default: human)
  --backing-chain          describe the images below it too
  --limits                 also print how QEMU must align its requests
  -t, --cache CACHE        with --limits: none, off, directsync: without the page cache; writeback, the
                           default, writethrough, unsafe: with it
  -U, --force-share        also read an image that other processes have open
  --qemu-version X.Y       print what that version of qemu-img prints (default: the newest known)
  --allow-path DIR         let images name files below this directory too; repeatable, / allows all
  --backing-format FORMAT  the format of a backing file whose image does not record it
  -h, --help               display this help

Nothing but FILE is opened, unless --backing-chain is given.
Exit status: 0 done, 1 failed.

Examples:
  qcow2-backup info disk.qcow2
  qcow2-backup info --output=json --backing-chain monday.qcow2
  qcow2-backup info --qemu-version 7.2 disk.qcow2
`

const hasLimits = since(10, 2)

const OPTIONS = [
  { name: 'format', letter: 'f', value: true },
  // Only the draft of the rewritten options has the letter.
  { name: 'backing-chain', letter: 'b', letterIn: hasDraftOptions },
  { name: 'cache', letter: 't', value: true, letterIn: hasLimits, longIn: hasLimits },
  { name: 'limits', longIn: hasLimits },
  OUTPUT,
] as const

export const command: QemuImgCommand = {
  help: HELP,
  async run(argv, { stdout, stderr, signal }) {
    const args = parseArguments('info', argv, OPTIONS)
    const [name] = args.operands
    if (args.operands.length !== 1) throw args.usageError('Expecting one image file name')
    const json = wantsJson(args)
    const { version, access } = args
    const limits = limitsOf(args)
    const options = { limits, format: args.get('format'), ...access, warn: stderr, signal }
    if (args.has('backing-chain')) {
      const chain = await backingChainInfo(name, options)
      const toJson = () => formatJson(chain.map((info) => infoToJson(info, version)))
      await stdout(json ? toJson() : chainToText(chain, version))
    } else {
      const info = await imageInfo(name, options)
      await stdout(json ? formatJson(infoToJson(info, version)) : infoToText(info, version))
    }
    return 0
  },
}

/** Through which cache limits are to be looked for, if they are. */
function limitsOf(args: Arguments): DescribeOptions['limits'] {
  const cache = args.get('cache') ?? 'writeback'
  const direct = isDirect(cache)
  if (direct === undefined) throw new QemuImgError(`Invalid cache option: ${cache}`)
  if (!args.has('limits')) return undefined
  return direct ? 'direct' : 'cached'
}
