import { checkQcow2 } from '../../check/check.ts'
import type { CheckResult } from '../../check/report.ts'
import { isBackupError, throwIfAborted } from '../../errors.ts'
import { readSnapshots, type Snapshot } from '../../format/qcow2/snapshots.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import { isWritten } from '../../image/locks.ts'
import type { ControlOptions } from '../../options.ts'
import { factsOf } from '../../source/bitmaps/facts.ts'
import { type ImageFacts, validateBitmapChain } from '../../source/bitmaps/health.ts'
import type { Chain } from '../../source/source-chain.ts'
import { type Finding, gravestFirst } from '../finding.ts'
import { ChainBitmaps } from './bitmaps.ts'
import { findingsOf } from './findings.ts'
import { mapChain } from './map-chain.ts'
import { pieceSizeOf } from './pieces.ts'
import type { ImageReport, ReportedCheck, ReportedImage, ReportedSnapshot } from './types.ts'

/** What a damaged image ends with: it is reported as well as what else there is to know. */
const DAMAGE = ['BAD_IMAGE', 'UNSUPPORTED', 'IO']

/**
 * Looks at a chain that is open: structure, map and bitmaps, no content.
 * @throws BackupError ABORTED; not for damage, which is what it finds
 */
export async function surveyChain(
  image: string,
  chain: Pick<Chain, 'images' | 'layers' | 'files' | 'sparse'>,
  control: ControlOptions = {},
): Promise<ImageReport> {
  const { images, layers } = chain
  const damage: Finding[] = []
  const attempt = async <T>(work: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await work()
    } catch (error) {
      if (!isBackupError(error) || !DAMAGE.includes(error.code)) throw error
      // Whoever reads the same table again says the same.
      if (!damage.some(({ text }) => text === error.message)) {
        damage.push({ level: 'fault', text: error.message })
      }
      return undefined
    }
  }
  const { size: virtualSize } = layers[0]
  const bitmaps = new ChainBitmaps(virtualSize, control.signal)
  const facts: ImageFacts[] = []
  const looked: Pick<ReportedImage, 'live' | 'check'>[] = []
  const snapshots: ReportedSnapshot[] = []
  for (const one of images) {
    throwIfAborted(control.signal, one.path)
    const live = isWritten(one.file.handle)
    looked.push({ live, check: live ? undefined : await attempt(() => checked(one, control)) })
    const fact = await attempt(() => factsOf(one, live))
    if (fact) facts.push(fact)
    await attempt(() => bitmaps.add(one, live))
    snapshots.push(...((await attempt(() => snapshotsOf(one))) ?? []))
  }
  const mapped = await mapChain(chain, attempt, control)
  const reported = images.map(({ path, format, file, header }, i): ReportedImage => {
    const { size: fileSize, allocatedBytes } = file
    return {
      image: path,
      format,
      virtualSize: layers[i].size,
      fileSize,
      allocatedBytes,
      clusterSize: header?.clusterSize,
      ...looked[i],
      ...mapped.images[i],
    }
  })
  const bitmapHealth = facts.length === images.length ? validateBitmapChain(facts) : []
  const findings = [...damage, ...findingsOf(images, reported, bitmapHealth, virtualSize)]
  return {
    image,
    time: new Date().toISOString(),
    virtualSize,
    findings: gravestFirst(findings),
    images: reported,
    bitmaps: bitmaps.found,
    bitmapHealth,
    snapshots,
    pieceSize: pieceSizeOf(virtualSize),
    ...mapped.disk,
  }
}

async function checked(
  { file, header }: ChainImage,
  control: ControlOptions,
): Promise<ReportedCheck | undefined> {
  if (!header) return undefined
  const result = await checkQcow2(file, header, () => {}, control)
  const { corruptions, leaks, checkErrors } = result
  return { corruptions, leaks, checkErrors, fragmentation: fragmentationOf(result) }
}

/** QEMU counts all compressed clusters as fragments, as each is read with its neighbours. */
function fragmentationOf(result: CheckResult): number | undefined {
  const plain = result.allocatedClusters - result.compressedClusters
  if (plain <= 0) return undefined
  return ((result.fragmentedClusters - result.compressedClusters) / plain) * 100
}

async function snapshotsOf({ path, file, header }: ChainImage): Promise<ReportedSnapshot[]> {
  if (!header) return []
  return (await readSnapshots(file, header)).map((one) => reportedSnapshot(path, one))
}

function reportedSnapshot(image: string, snapshot: Snapshot): ReportedSnapshot {
  const { id, name, dateSeconds, diskSize, vmStateSize } = snapshot
  const time = new Date(dateSeconds * 1000).toISOString()
  return { image, id, name, time, diskSize, vmStateSize: Number(vmStateSize) }
}
