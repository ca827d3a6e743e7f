import type { Command } from 'commander'
import { BackupError } from '../../errors.ts'
import type { Verified } from '../../verify/verify.ts'
import { addImageAccess, type SourceFlags } from '../options.ts'
import { print } from '../print.ts'
import { interruptible } from '../signals.ts'

const HELP = `
Runs info, check, map and measure, for people and as JSON, once by qemu-img and once by this
program, and compares outputs and exit statuses byte for byte. Each difference is shown as a diff.
Exit status: 0 no difference, 1 differences.

Examples:
  qcow2-backup verify backup.qcow2
  qcow2-backup verify --json --qemu-img /opt/qemu/bin/qemu-img full.qcow2 monday.qcow2
  qcow2-backup verify --allow-path /srv/base overlay.qcow2`

type VerifyFlags = SourceFlags & { qemuImg?: string; json?: boolean }

/** `verify IMAGE…`: our commands beside qemu-img's. */
export function declare(command: Command): void {
  command
    .description('Looks at images with qemu-img and with this program, and compares what they say.')
    .argument('<image...>', 'raw or qcow2 file, or block device')
  addImageAccess(command, 'by its first bytes')
    .option('--qemu-img <program>', 'the qemu-img to stand beside (default: the one in PATH)')
    .option('--json', 'print what was found as one JSON array')
    .addHelpText('after', HELP)
    .action(verify)
}

async function verify(images: string[], flags: VerifyFlags): Promise<void> {
  const { verifyImages } = await import('../../verify/verify.ts')
  const { qemuImg, format, allowPath: allowPaths, backingFormat, forceShare } = flags
  await interruptible(async (signal) => {
    const options = { qemuImg, format, allowPaths, backingFormat, forceShare, signal }
    const all: Verified[] = []
    for await (const verified of verifyImages(images, options)) {
      all.push(verified)
      if (!flags.json) await print(describe(verified))
    }
    if (flags.json) await print(`${JSON.stringify(all, null, 1)}\n`)
    const different = all.filter(({ same }) => !same).length
    if (different > 0) {
      const why = `${different} of ${all.length} comparisons with qemu-img differ`
      throw new BackupError('DIFFERENT', 'verify', why)
    }
  })
}

function describe({ image, command, same, status, difference = '' }: Verified): string {
  return `${image}: ${command}: ${same ? `same, status ${status}` : 'different'}\n${difference}`
}
