import type { Command } from 'commander'
import type { ManifestVerified } from '../../backup/verify-manifests.ts'
import { BackupError, usageError } from '../../errors.ts'
import type { Compared } from '../../parity/parity.ts'
import { oneLine } from '../errors.ts'
import { addImageAccess, addProgressOptions, type SourceFlags } from '../options.ts'
import { print } from '../print.ts'
import { openProgress } from '../progress.ts'
import { interruptible } from '../signals.ts'

const HELP = `
Runs info, check, map and measure, for people and as JSON, once by qemu-img and once by this
program, and compares outputs and exit statuses byte for byte. Each difference is shown as a diff.

With --manifest no qemu-img is run: each image is checked, what it holds is read, and compared with
what was read from the source when the image was made, as IMAGE.manifest.json has it. That is about
the image alone: of a chain, name every image.

Exit status: 0 no difference, 1 differences.

Examples:
  qcow2-backup verify backup.qcow2
  qcow2-backup verify --json --against /opt/qemu/bin/qemu-img full.qcow2 monday.qcow2
  qcow2-backup verify --manifest full.qcow2 monday.qcow2
  qcow2-backup verify --allow-path /srv/base overlay.qcow2`

interface VerifyFlags extends SourceFlags {
  against?: string
  manifest?: boolean
  json?: boolean
  progress?: 'json' | false
}

/** `verify IMAGE…`: our commands beside qemu-img's, or images beside their manifests. */
export function declare(command: Command): void {
  command
    .description('Looks at images with qemu-img and with this program, and compares what they say.')
    .argument('<image...>', 'raw or qcow2 file, or block device')
  addImageAccess(command, 'by its first bytes')
    .option('--against <program>', 'the qemu-img to stand beside (default: the one in PATH)')
    .option('--manifest', 'hold the images against their manifests instead')
    .option('--json', 'print what was found as one JSON array')
  addProgressOptions(command).addHelpText('after', HELP).action(verify)
}

async function verify(images: string[], flags: VerifyFlags): Promise<void> {
  await (flags.manifest ? againstManifests(images, flags) : againstQemuImg(images, flags))
}

async function againstQemuImg(images: string[], flags: VerifyFlags): Promise<void> {
  const { compareWithQemuImg } = await import('../../api/parity.ts')
  const { against, format, allowPath: allowPaths, backingFormat, forceShare } = flags
  await interruptible(async (signal) => {
    const options = { against, format, allowPaths, backingFormat, forceShare, signal }
    await report(
      compareWithQemuImg(images, options),
      flags,
      describe,
      'comparisons with qemu-img differ',
    )
  })
}

async function againstManifests(images: string[], flags: VerifyFlags): Promise<void> {
  const given = (['against', 'format', 'allowPath', 'backingFormat'] as const).find(
    (name) => flags[name],
  )
  if (given) throw usageError('--manifest', 'only goes with -U, --json and what is about progress')
  const { verifyManifests } = await import('../../api/verify.ts')
  const { forceShare } = flags
  const progress = await openProgress(flags.progress)
  await interruptible(async (signal) => {
    const options = { requireManifest: true, forceShare, signal, onProgress: progress.update }
    try {
      await report(verifyManifests(images, options), flags, describeHeld, 'images differ')
    } finally {
      progress.close()
    }
  })
}

/** @throws BackupError DIFFERENT if anything does, after all was told */
async function report<Found extends { same: boolean }>(
  found: AsyncIterable<Found>,
  { json }: VerifyFlags,
  tell: (found: Found) => string,
  what: string,
): Promise<void> {
  const all: Found[] = []
  for await (const one of found) {
    all.push(one)
    if (!json) await print(tell(one))
  }
  if (json) await print(`${JSON.stringify(all, null, 1)}\n`)
  const different = all.filter(({ same }) => !same).length
  if (different === 0) return
  throw new BackupError('DIFFERENT', 'verify', `${different} of ${all.length} ${what}`)
}

function describe({ image, command, same, status, difference = '' }: Compared): string {
  return `${image}: ${command}: ${same ? `same, status ${status}` : 'different'}\n${difference}`
}

function describeHeld({ image, manifest, same, difference = '', notes }: ManifestVerified): string {
  // What stands in a manifest may be anybody's.
  const sound = manifest ? `${image}: sound, and as it was read on ${manifest.created}` : notes[0]
  const told = same ? sound : difference
  return `${oneLine(told)}\n`
}
