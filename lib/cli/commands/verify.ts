import type { Command } from 'commander'
import {
  VERIFY_OPTIONS,
  VERIFY_REPOSITORY_OPTIONS,
  verifyManifests,
  verifyRepository,
} from '../../api/verify.ts'
import type { ManifestVerdict } from '../../backup/verify-manifests.ts'
import { argumentError } from '../../errors.ts'
import type { RepositoryFinding } from '../../repository/verify/finding.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { addOutputFlags, type OutputFlags } from '../output-flags.ts'
import { isSame, printFindings } from '../report.ts'
import { machineAndPoint, REPOSITORY_OPTIONS } from '../repository-flags.ts'

const HELP = `
The structure of each image is checked. If IMAGE.manifest.json is beside it, the content is also read
and compared with the data that was read from the source when the backup was made. A missing manifest
is reported, and is a failure only with --manifest. Each image is verified by itself: of a chain, name
every image. All images are verified, even if one of them is damaged.

With --repo every image of the repository is verified, or those of MACHINE, or those on which MACHINE@POINT
builds: structure, content and chain against its record. Records that cannot be read, images without
record and records without image are failures, too. When an image was read is remembered, and shown by
list. With --sample 5% only so much is read, what nobody has read for the longest time first, so that a run each
day reads everything within three weeks; all other images are compared with their records without
reading them.

Exit status: 0 all are good, 1 one is not.

Examples:
  qcow2-backup verify full.qcow2 monday.qcow2
  qcow2-backup verify --manifest --json full.qcow2
  qcow2-backup verify --repo backups
  qcow2-backup verify --repo backups --sample 5%
  qcow2-backup verify --repo backups web1@20261129T115200Z --json`

const OF_REPOSITORY = { ...REPOSITORY_OPTIONS, sample: VERIFY_REPOSITORY_OPTIONS.sample } as const

/** `verify IMAGE…` and `verify --repo DIR [MACHINE[@POINT]]…`: backups by what is recorded of them. */
export function declare(command: Command, io: Io): void {
  command
    .description('Verifies backups: their structure, and their content where it was recorded.')
    .usage(
      '[options] <image...>\n       qcow2-backup verify --repo <dir> [options] [machine[@point]...]',
    )
    .argument('[image...]', 'the qcow2 images of backups; with --repo machines, or points of them')
  addFlags(addFlags(command, VERIFY_OPTIONS), OF_REPOSITORY)
  addOutputFlags(command, 'print the results as one JSON array')
    .addHelpText('after', HELP)
    .action(async (names: string[], flags: OutputFlags) => {
      const options = optionsFrom(flags, VERIFY_OPTIONS)
      const { repository, sample } = optionsFrom(flags, OF_REPOSITORY)
      if (repository !== undefined) {
        for (const [key, value] of Object.entries(options)) {
          if (value !== undefined) throw argumentError(key, 'is not for what a repository has')
        }
        const only = names.length > 0 ? names.map(machineAndPoint) : undefined
        return await printFindings(
          io,
          flags,
          (control) => verifyRepository(repository, { only, sample, ...control }),
          {
            describe: describeFinding,
            isGood: isSame,
            subject: 'verify',
            failures: 'are not good',
          },
        )
      }
      if (sample !== undefined) throw argumentError('sample', 'needs a repository, --repo')
      if (names.length === 0) throw argumentError('image', 'missing')
      await printFindings(
        io,
        flags,
        (control) => verifyManifests(names, { ...options, ...control }),
        { describe, isGood: isSame, subject: 'verify', failures: 'images are not good' },
      )
    })
}

function describe({ image, manifest, same, difference = '', notes }: ManifestVerdict): string[] {
  const sound = manifest ? `${image}: sound, and as it was read on ${manifest.created}` : notes[0]
  return [same ? sound : difference]
}

/** Of a sample, nothing is said of an image that was not read, and is as it should be. */
function describeFinding(finding: RepositoryFinding): readonly string[] {
  const { file, read, same, difference, notes } = finding
  if (difference !== undefined) return [difference]
  return same && read ? [`${file}: sound, and as recorded`] : notes
}
