import { StatusError } from '../../block-status/status.ts'
import type { Bitmap } from '../../format/qcow2/bitmaps.ts'
import type { Snapshot } from '../../format/qcow2/snapshots.ts'
import type { ControlOptions } from '../../options.ts'
import { encodeText } from '../../text.ts'
import { nodeOf, textOf } from '../chain-node.ts'
import { QemuImgError } from '../messages.ts'
import type { Qcow2Metadata } from '../metadata.ts'
import { closeChain, type OpenChain, type OpenChainOptions, openChain } from '../qemu-chain.ts'
import { NEWEST, type QemuVersion } from '../version.ts'
import {
  createOptions,
  isOptionList,
  OptionError,
  type OutputFormat,
  parseOptions,
} from './create-options.ts'
import type { MeasuredBitmap } from './layout.ts'
import { type Measure, type MeasureInput, measureQcow2, measureRaw } from './measure.ts'
import { qcow2Options } from './qcow2-options.ts'
import { findSnapshot, type SnapshotChoice } from './snapshot-choice.ts'

/** Format and options of the new image. */
export interface MeasureTarget {
  /** Default raw. */
  outputFormat?: string
  /** Each `name=value,…` as `qemu-img create -o` takes it. */
  outputOptions?: readonly string[]
}

export interface MeasureImageOptions extends OpenChainOptions, MeasureTarget, ControlOptions {
  /** Measure the disk as it was then. */
  snapshot?: SnapshotChoice
}

/** Formats that QEMU can make but not measure; those it cannot make either it words otherwise. */
const UNMEASURED = ['qcow', 'qed', 'vdi', 'vhdx', 'vmdk', 'vpc', 'parallels']

/**
 * How large an image of an empty disk will be.
 * @param size of the disk, bytes
 * @throws QemuImgError
 */
export async function measureSize(
  size: bigint,
  target: MeasureTarget = {},
  version: QemuVersion = NEWEST,
): Promise<Measure> {
  return await measure({ size }, target, version)
}

/**
 * How large a copy of an image, with all below it, will be.
 * @param name as the user gave it
 * @param version whose options are known
 * @throws QemuImgError
 */
export async function measureImage(
  name: string,
  options: MeasureImageOptions = {},
  version: QemuVersion = NEWEST,
): Promise<Measure> {
  const { snapshot, ...access } = options
  const chain = await openChain(name, access)
  try {
    const { warn, signal, onProgress } = options
    const active = snapshot && chosenSnapshot(chain, snapshot)
    const content = nodeOf(chain.images, { warn, active })
    const bitmaps = chain.qcow2 && bitmapsOf(chain.qcow2)
    const size = BigInt(chain.images[0].size)
    const measured = { size, content, bitmaps, name, signal, onProgress }
    return await measure(measured, options, version)
  } catch (error) {
    if (!(error instanceof StatusError)) throw error
    options.warn?.(textOf(error))
    const message = 'Unable to get block status: Input/output error'
    throw new QemuImgError(message, 1, { cause: error })
  } finally {
    await closeChain(chain)
  }
}

async function measure(
  measured: MeasureInput,
  { outputFormat = 'raw', outputOptions = [] }: MeasureTarget,
  version: QemuVersion,
): Promise<Measure> {
  const format = requireOutput(outputFormat)
  try {
    const options = optionsFor(format, outputOptions, version)
    if (format === 'raw') return measureRaw(measured)
    return await measureQcow2(measured, qcow2Options(options, version))
  } catch (error) {
    if (!(error instanceof OptionError)) throw error
    throw new QemuImgError(error.message, 1, { cause: error, code: 'USAGE' })
  }
}

function optionsFor(
  format: OutputFormat,
  lists: readonly string[],
  version: QemuVersion,
): Map<string, string> {
  const bad = lists.find((list) => !isOptionList(list))
  if (bad !== undefined) throw new OptionError(`Invalid option list: ${bad}`)
  try {
    return parseOptions(lists.join(','), createOptions(format, version), version)
  } catch (error) {
    if (!(error instanceof OptionError)) throw error
    const message = `${error.message}\nqemu-img: Invalid options for file format '${format}'`
    throw new OptionError(message, { cause: error })
  }
}

function requireOutput(format: string): OutputFormat {
  if (format === 'raw' || format === 'qcow2') return format
  if (!UNMEASURED.includes(format)) throw new QemuImgError(`Unknown file format '${format}'`)
  throw new QemuImgError(`Block driver '${format}' does not support size measurement`)
}

function chosenSnapshot({ qcow2 }: OpenChain, choice: SnapshotChoice): Snapshot {
  const failed = (why: string) => new QemuImgError(`Failed to load snapshot: ${why}`)
  if (!qcow2) {
    const what = "Block format 'raw' used by device ''"
    throw failed(`${what} does not support temporarily loading internal snapshots`)
  }
  const found = findSnapshot(qcow2.snapshots, choice)
  if (!found) throw failed("Can't find snapshot")
  return found
}

/** Of an image that can have bitmaps. */
function bitmapsOf({ header, bitmaps }: Qcow2Metadata): MeasuredBitmap[] | undefined {
  return header.version < 3 ? undefined : bitmaps.map(measuredBitmap)
}

function measuredBitmap({ name, granularityBits }: Bitmap): MeasuredBitmap {
  return { nameBytes: encodeText(name).length, granularity: 2n ** BigInt(granularityBits) }
}
