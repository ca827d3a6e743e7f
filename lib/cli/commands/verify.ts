import { type Command, Option } from 'commander'
import type { ManifestVerified } from '../../backup/verify-manifests.ts'
import { oneLine } from '../../text.ts'
import type { Io } from '../io.ts'
import { addProgressOptions, type SourceFlags } from '../options.ts'
import { openProgress } from '../progress.ts'
import { printFindings } from '../report.ts'

const HELP = `
The structure of each image is checked. Where IMAGE.manifest.json lies beside it, what the image holds
is read too, and compared with what was read from the source when the backup was made. Where there is
none, that is said, and no failure unless --manifest is given. Each image is verified by itself: of a
chain, name every image. All images are verified, whatever is wrong with one of them.

Exit status: 0 all are good, 1 one is not.

Examples:
  qcow2-backup verify full.qcow2 monday.qcow2
  qcow2-backup verify --manifest --json full.qcow2`

interface VerifyFlags extends Pick<SourceFlags, 'forceShare'> {
  manifest?: boolean
  json?: boolean
  progress?: 'json' | false
}

/** `verify IMAGE…`: backups by their structure, and by their manifests. */
export function declare(command: Command, io: Io): void {
  command
    .description('Verifies backups: their structure, and their content where it was recorded.')
    .argument('<image...>', 'the qcow2 images of backups')
    .option('--manifest', 'an image without a manifest is a failure')
    .addOption(new Option('-U, --force-share', 'also read images that others may be writing to'))
    .option('--json', 'print the results as one JSON array, one for each image')
  addProgressOptions(command)
    .addHelpText('after', HELP)
    .action((images: string[], flags: VerifyFlags) => verify(io, images, flags))
}

async function verify(io: Io, images: string[], flags: VerifyFlags): Promise<void> {
  const { verifyManifests } = await import('../../api/verify.ts')
  const { forceShare, manifest: requireManifest } = flags
  const progress = openProgress(flags.progress, io)
  // A line must not be drawn over by the bar, which may be on the same terminal.
  const above = { ...io, stdout: (text: string) => progress.around(() => io.stdout(text)) }
  await io.interruptible(async (signal) => {
    const options = { requireManifest, forceShare, signal, onProgress: progress.update }
    try {
      const found = verifyManifests(images, options)
      await printFindings(above, found, flags, describe, 'verify', 'images are not good')
    } finally {
      progress.close()
    }
  })
}

function describe({ image, manifest, same, difference = '', notes }: ManifestVerified): string {
  // What stands in a manifest may be anybody's.
  const sound = manifest ? `${image}: sound, and as it was read on ${manifest.created}` : notes[0]
  return `${oneLine(same ? sound : difference)}\n`
}
