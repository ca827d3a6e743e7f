import type { Command } from 'commander'
import { VERIFY_OPTIONS, verifyManifests } from '../../api/verify.ts'
import type { ManifestVerdict } from '../../backup/verify-manifests.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { printFindings } from '../report.ts'

const HELP = `
The structure of each image is checked. If IMAGE.manifest.json is beside it, the content is also read
and compared with the data that was read from the source when the backup was made. A missing manifest
is reported, and is a failure only with --manifest. Each image is verified by itself: of a chain, name
every image. All images are verified, even if one of them is damaged.

Exit status: 0 all are good, 1 one is not.

Examples:
  qcow2-backup verify full.qcow2 monday.qcow2
  qcow2-backup verify --manifest --json full.qcow2`

/** `verify IMAGE…`: backups by their structure, and by their manifests. */
export function declare(command: Command, io: Io): void {
  command
    .description('Verifies backups: their structure, and their content where it was recorded.')
    .argument('<image...>', 'the qcow2 images of backups')
  addOutputFlags(addFlags(command, VERIFY_OPTIONS), 'print the results as one JSON array')
    .addHelpText('after', HELP)
    .action((images: string[], flags: OutputFlags) =>
      printFindings(
        io,
        flags,
        (control) => verifyManifests(images, { ...optionsFrom(flags, VERIFY_OPTIONS), ...control }),
        { describe, subject: 'verify', failures: 'images are not good' },
      ),
    )
}

function describe({ image, manifest, same, difference = '', notes }: ManifestVerdict): string[] {
  const sound = manifest ? `${image}: sound, and as it was read on ${manifest.created}` : notes[0]
  return [same ? sound : difference]
}
