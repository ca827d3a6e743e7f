import { argumentError } from '../errors.ts'
import {
  CHAIN_OPTIONS,
  CONTROL_OPTIONS,
  type ControlOptions,
  FORMAT,
  POINT_OPTIONS,
  SHARE_OPTIONS,
} from '../options.ts'
import type { CheckOptions as Check } from '../qemu-img/check/check-image.ts'
import type { ImageCheck } from '../qemu-img/check/result.ts'
import type {
  CompareImagesOptions as Compare,
  Comparison,
} from '../qemu-img/compare/compare-images.ts'
import type { ImageInfo } from '../qemu-img/info/info.ts'
import type { MapEntry } from '../qemu-img/map/map.ts'
import type { MapOptions as Mapping } from '../qemu-img/map/map-image.ts'
import type { Measure } from '../qemu-img/measure/measure.ts'
import type {
  MeasureImageOptions as MeasureImage,
  MeasureTarget,
} from '../qemu-img/measure/measure-image.ts'
import {
  BOOLEAN,
  callback,
  checkArgument,
  checkOptions,
  choice,
  either,
  list,
  option,
  ownArgument,
  PATH,
  type Rule,
  record,
  type SchemaFor,
  show,
  TEXT,
  whole,
} from '../schema.ts'
import { Call } from './call.ts'

/** Options for internal callers only. */
type Internal = 'open' | 'writable' | 'checking'

/** Options of `imageInfo` and `backingChainInfo`: how an image is opened. */
export type InfoOptions = Omit<
  Mapping,
  Internal | 'snapshot' | 'start' | 'length' | 'onOpen' | 'onProgress'
> &
  Pick<ControlOptions, 'signal'>
/** Options of `checkImage`: how the image is opened, repair, and callbacks for findings. */
export type CheckOptions = Omit<Check, Internal | 'disk'> & ControlOptions
/** Options of `mapImage`: how the image is opened, and the range, in guest bytes. */
export type MapOptions = Omit<Mapping, Internal> & ControlOptions
/** Options of `compareImages`: formats and snapshots are pairs, one for each image. */
export type CompareImagesOptions = Omit<Compare, Internal> & ControlOptions
/** Options of `measureImage`: how the image is opened, and the format of the copy measured. */
export type MeasureImageOptions = Omit<MeasureImage, Internal> & ControlOptions

const ACCESS_OPTIONS: SchemaFor<InfoOptions> = {
  format: option(FORMAT, "the image's format", { letter: 'f', fallback: 'by its first bytes' }),
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  warn: option(callback(), 'takes what qemu-img prints about an image that it opens all the same'),
  signal: CONTROL_OPTIONS.signal,
}

const CHECK_OPTIONS: SchemaFor<CheckOptions> = {
  ...ACCESS_OPTIONS,
  ...CONTROL_OPTIONS,
  repair: option(choice('leaks', 'all'), 'repair what is found'),
  onFinding: option(callback(), 'takes what is found'),
  onRepaired: option(callback(), 'called when something was repaired'),
}

const MAP_OPTIONS: SchemaFor<MapOptions> = {
  ...ACCESS_OPTIONS,
  ...CONTROL_OPTIONS,
  ...POINT_OPTIONS,
  start: option(whole(0, Number.MAX_SAFE_INTEGER, 'size'), 'first guest offset'),
  length: option(whole(0, Number.MAX_SAFE_INTEGER, 'size'), 'bytes'),
  onOpen: option(callback(), 'called when the image is open'),
}

/** One of each image, or none. */
type Pair = readonly [string | undefined, string | undefined]

function pair(what: string, rule: Rule<string>): Rule<Pair> {
  return {
    form: 'none',
    fault(value) {
      if (!Array.isArray(value) || value.length > 2)
        return `${show(value)} is not a pair of ${what}`
      return value.map((one) => (one === undefined ? one : rule.fault(one))).find(Boolean)
    },
    own: (value) => (Array.isArray(value) ? [...value.slice(0, 3)] : value),
  }
}

const { format: _, ...NO_FORMAT } = ACCESS_OPTIONS
const COMPARE_OPTIONS: SchemaFor<CompareImagesOptions> = {
  ...NO_FORMAT,
  ...CONTROL_OPTIONS,
  formats: option(pair('formats', FORMAT), 'the formats of the two images'),
  snapshots: option(pair('snapshots', TEXT), 'internal snapshots of the two images'),
  strict: option(BOOLEAN, 'sizes and what is allocated must be equal too'),
  compressedFlag: option(BOOLEAN, 'as versions from 8.2 on'),
  direct: option(BOOLEAN, 'read past the page cache'),
  onOpen: option(callback(), 'called when both images are open'),
  onTail: option(callback(), 'called before the bytes that only the larger image has'),
  onEqual: option(callback(), 'called as bytes turn out to be equal'),
}

const TARGET_OPTIONS: SchemaFor<MeasureTarget> = {
  outputFormat: option(FORMAT, 'the format of the new image', { fallback: 'raw' }),
  outputOptions: option(list(TEXT), 'name=value,… as qemu-img create -o takes it'),
}

const MEASURE_OPTIONS: SchemaFor<MeasureImageOptions> = {
  ...ACCESS_OPTIONS,
  ...CONTROL_OPTIONS,
  ...TARGET_OPTIONS,
  snapshot: option(
    either(
      'not a choice of a snapshot',
      record<{ idOrName: string }>({ idOrName: TEXT }),
      record<{ id?: string; name?: string }>({}, { id: TEXT, name: TEXT }),
    ),
    'measure the disk as it was then',
  ),
}

/**
 * Describes an image by itself, as `qemu-img info` does.
 * @param name path, as the user gave it
 * @throws QemuImgError; BackupError USAGE, ABORTED, CALLBACK
 */
export async function imageInfo(name: string, options: InfoOptions = {}): Promise<ImageInfo> {
  checkArgument('image', PATH, name)
  const checked = checkOptions(ACCESS_OPTIONS, options) as InfoOptions
  const { imageInfo: run } = await import('../qemu-img/info/info.ts')
  const call = new Call(name, checked.signal)
  return await call.run(() => run(name, { ...checked, warn: call.callback('warn', checked.warn) }))
}

/**
 * Describes an image and its backing chain, top first. Every name found inside an image goes through
 * the gate, and no format is guessed but that of the file that the user named.
 * @throws QemuImgError; BackupError USAGE, ABORTED, CALLBACK
 */
export async function backingChainInfo(
  name: string,
  options: InfoOptions = {},
): Promise<ImageInfo[]> {
  checkArgument('image', PATH, name)
  const checked = checkOptions(ACCESS_OPTIONS, options) as InfoOptions
  const { backingChainInfo: run } = await import('../qemu-img/info/info.ts')
  const call = new Call(name, checked.signal)
  return await call.run(() => run(name, { ...checked, warn: call.callback('warn', checked.warn) }))
}

/**
 * Checks a qcow2 image: its refcounts, and that every reference has a possible value. Content is not
 * read. Its backing files are opened, but not checked.
 * @throws QemuImgError if it cannot be opened or read; its status is 63 for a raw image.
 * BackupError USAGE, ABORTED, CALLBACK
 */
export async function checkImage(name: string, options: CheckOptions = {}): Promise<ImageCheck> {
  checkArgument('image', PATH, name)
  const { signal, onProgress, ...checked } = checkOptions(CHECK_OPTIONS, options) as CheckOptions
  const { checkImage: run } = await import('../qemu-img/check/check-image.ts')
  const call = new Call(name, signal)
  return await call.run(() =>
    run(name, {
      ...checked,
      signal,
      onProgress: call.callback('onProgress', onProgress),
      warn: call.callback('warn', checked.warn),
      onFinding: call.callback('onFinding', checked.onFinding),
      onRepaired: checked.onRepaired && call.taker('onRepaired', checked.onRepaired),
    }),
  )
}

/**
 * Locates the guest bytes of an image and its backing chain: batches of ordered, contiguous
 * entries (bytes), neighbours with equal status merged. An empty range gives one entry of length 0.
 * @throws QemuImgError; BackupError USAGE, ABORTED, CALLBACK
 */
export async function* mapImage(
  name: string,
  options: MapOptions = {},
): AsyncGenerator<readonly MapEntry[], void, undefined> {
  checkArgument('image', PATH, name)
  const { signal, onProgress, ...checked } = checkOptions(MAP_OPTIONS, options) as MapOptions
  const { mapImage: run } = await import('../qemu-img/map/map-image.ts')
  const call = new Call(name, signal)
  yield* call.each(() =>
    run(name, {
      ...checked,
      signal,
      onProgress: call.callback('onProgress', onProgress),
      warn: call.callback('warn', checked.warn),
      onOpen: checked.onOpen && call.taker('onOpen', checked.onOpen),
    }),
  )
}

/**
 * Compares the guest content of two images, each with its backing chain. Bytes are read only where
 * the metadata does not decide: not for zeroes, nor for the same place of the same file.
 * @param names paths, as the user gave them
 * @throws QemuImgError if an image cannot be opened; BackupError USAGE, ABORTED, CALLBACK
 */
export async function compareImages(
  names: readonly [string, string],
  options: CompareImagesOptions = {},
): Promise<Comparison> {
  const own = ownArgument('images', list(PATH), names) as [string, string]
  if (own.length !== 2) throw argumentError('images', `${own.length} given, not two`)
  const { onProgress, ...checked } = checkOptions(COMPARE_OPTIONS, options) as CompareImagesOptions
  const { compareImages: run } = await import('../qemu-img/compare/compare-images.ts')
  const call = new Call(own[0], checked.signal)
  const tell = call.positions('compare', onProgress)
  const { onEqual } = checked
  let position = 0
  const told = async (bytes: number, size: number) => {
    position += bytes
    tell?.(position, size)
    await onEqual?.(bytes, size)
  }
  return await call.run(() =>
    run(own, { ...checked, onEqual: tell || onEqual ? call.taker('onEqual', told) : undefined }),
  )
}

/**
 * Computes the size of a copy of an image with its backing chain, bytes.
 * @throws QemuImgError; BackupError USAGE, ABORTED, CALLBACK
 */
export async function measureImage(
  name: string,
  options: MeasureImageOptions = {},
): Promise<Measure> {
  checkArgument('image', PATH, name)
  const { onProgress, ...checked } = checkOptions(MEASURE_OPTIONS, options) as MeasureImageOptions
  const { measureImage: run } = await import('../qemu-img/measure/measure-image.ts')
  const call = new Call(name, checked.signal)
  return await call.run(() =>
    run(name, {
      ...checked,
      onProgress: call.callback('onProgress', onProgress),
      warn: call.callback('warn', checked.warn),
    }),
  )
}

/**
 * Computes the size of an image of an empty disk, bytes.
 * @param size of the disk, bytes
 * @throws QemuImgError; BackupError USAGE
 */
export async function measureSize(size: bigint, target: MeasureTarget = {}): Promise<Measure> {
  if (typeof size !== 'bigint' || size < 0n || size >= 2n ** 63n) {
    throw argumentError('size', `${show(size)} is not a bigint from 0 to 2^63 − 1`)
  }
  const checked = checkOptions(TARGET_OPTIONS, target) as MeasureTarget
  const { measureSize: run } = await import('../qemu-img/measure/measure-image.ts')
  return await new Call('size').run(() => run(size, checked))
}
