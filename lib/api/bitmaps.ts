import { argumentError } from '../errors.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import type { ChainReport, ChainReportOptions } from '../maintain/chain-report.ts'
import type { BitmapOperation } from '../maintain/edit-bitmap.ts'
import type { BitmapInfo, ReadBitmapOptions } from '../maintain/list-bitmaps.ts'
import {
  CHAIN_OPTIONS,
  CONTROL_OPTIONS,
  type ControlOptions,
  FORMAT,
  GRANULARITY_OPTIONS,
  SHARE_OPTIONS,
} from '../options.ts'
import {
  BOOLEAN,
  callback,
  checkArgument,
  checkOptions,
  choice,
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
import type { BitmapHealth, ImageFacts } from '../source/bitmaps/health.ts'
import { validateBitmapChain as validate } from '../source/bitmaps/health.ts'
import { factsFromQmp as factsOf, type NamedBlockNode } from '../source/bitmaps/qmp-facts.ts'
import { Call } from './call.ts'

const READ_OPTIONS: SchemaFor<ReadBitmapOptions> = { ...SHARE_OPTIONS, ...CONTROL_OPTIONS }
export const REPORT_OPTIONS: SchemaFor<ChainReportOptions> = {
  format: option(FORMAT, 'the format', { letter: 'f', value: 'format', fallback: 'by its magic' }),
  ...CHAIN_OPTIONS,
  ...CONTROL_OPTIONS,
} as const

const SIMPLE = choice('remove', 'remove-all', 'clear', 'enable', 'disable')
const { granularity: GRANULARITY } = GRANULARITY_OPTIONS
const OPERATIONS = {
  add: record<BitmapOperation>({ kind: choice('add') }, { granularity: GRANULARITY }),
  merge: record<BitmapOperation>(
    { kind: choice('merge'), source: TEXT },
    { from: PATH, format: FORMAT },
  ),
  simple: record<BitmapOperation>({ kind: SIMPLE }),
}

/** Each kind has fields of its own. */
const OPERATION: Rule<BitmapOperation> = {
  form: 'none',
  fault(value) {
    if (typeof value !== 'object' || value === null) return `${show(value)} is not an operation`
    const { kind } = value as { kind?: unknown }
    if (kind === 'add' || kind === 'merge') return OPERATIONS[kind].fault(value)
    if (SIMPLE.fault(kind) === undefined) return OPERATIONS.simple.fault(value)
    return `kind: ${show(kind)} is not one of add, remove, remove-all, clear, enable, disable, merge`
  },
  own: OPERATIONS.merge.own,
}

/**
 * Does several things to one bitmap of an image, in their order; all of them or, if one fails, none.
 * The image is checked first, and no other process may use it meanwhile.
 * @param image path of a qcow2 image of version 3
 * @param bitmap its name; with 'remove-all' it may be ''
 * @throws BackupError BAD_BITMAP if an operation cannot be done, with QEMU's words in `qemu`;
 * BAD_IMAGE, UNSUPPORTED, IN_USE, IO, USAGE, ABORTED, CALLBACK
 */
export async function editBitmap(
  image: string,
  bitmap: string,
  operations: readonly BitmapOperation[],
  options: ControlOptions = {},
): Promise<void> {
  checkArgument('image', PATH, image)
  checkArgument('bitmap', TEXT, bitmap)
  const own = ownArgument('operations', list(OPERATION), operations)
  const checked = checkOptions(CONTROL_OPTIONS, options)
  const { editBitmap: run } = await import('../maintain/edit-bitmap.ts')
  const call = new Call(image, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  await call.run(() => run(image, bitmap, own, { ...checked, onProgress }))
}

/**
 * The persistent bitmaps of a qcow2 image, in their order.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IN_USE, IO, USAGE, ABORTED, CALLBACK
 */
export async function listBitmaps(
  image: string,
  options: ReadBitmapOptions = {},
): Promise<BitmapInfo[]> {
  checkArgument('image', PATH, image)
  const checked = checkOptions(READ_OPTIONS, options)
  const { listBitmaps: run } = await import('../maintain/list-bitmaps.ts')
  const call = new Call(image, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(() => run(image, { ...checked, onProgress }))
}

/**
 * Reads the dirty and clean ranges of a bitmap of an image.
 * @param take receives ordered, contiguous runs from 0 to the virtual size, in batches of bounded
 * size; the next comes when its promise has resolved
 * @throws BackupError BAD_BITMAP if it is not there or inconsistent; BAD_IMAGE, UNSUPPORTED, IN_USE,
 * IO, USAGE, ABORTED, CALLBACK if `take` or `onProgress` throws
 */
export async function readBitmap(
  image: string,
  bitmap: string,
  take: (runs: readonly DirtyRun[]) => void | Promise<void>,
  options: ReadBitmapOptions = {},
): Promise<void> {
  checkArgument('image', PATH, image)
  checkArgument('bitmap', TEXT, bitmap)
  checkArgument('take', callback(), take)
  const checked = checkOptions(READ_OPTIONS, options)
  const { readBitmap: run } = await import('../maintain/list-bitmaps.ts')
  const call = new Call(image, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  await call.run(() => run(image, bitmap, call.taker('take', take), { ...checked, onProgress }))
}

/**
 * Reads the persistent bitmaps of an image and of its backing chain, and judges them. Images that
 * are being written to are read, too.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO, USAGE, ABORTED, CALLBACK
 */
export async function readBitmapChain(
  top: string,
  options: ChainReportOptions = {},
): Promise<ChainReport> {
  checkArgument('top', PATH, top)
  const checked = checkOptions(REPORT_OPTIONS, options)
  const { readBitmapChain: run } = await import('../maintain/chain-report.ts')
  const call = new Call(top, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(() => run(top, { ...checked, onProgress }))
}

/** Bytes. */
const SIZE = whole(0)

const FACTS: Rule<readonly ImageFacts[]> = list(
  record<ImageFacts>(
    {
      image: TEXT,
      bitmaps: list(
        record(
          {
            name: TEXT,
            granularity: GRANULARITY,
            recording: BOOLEAN,
            persistent: BOOLEAN,
            inconsistent: BOOLEAN,
          },
          { why: TEXT, remedy: TEXT },
          { open: true },
        ),
      ),
    },
    { virtualSize: SIZE, cannot: TEXT, unreadable: TEXT },
    { open: true },
  ),
)

/**
 * Judges every bitmap of a backing chain by libvirt's rules: it is in the top image; the images that
 * have it are one run from there; and in each of them it is persistent, records, and is not
 * inconsistent. Each bitmap is judged on its own. Granularities may differ from
 * image to image.
 * @param chain top first
 * @returns in the order in which the names come up, from the top down
 * @throws BackupError USAGE
 */
export function validateBitmapChain(chain: readonly ImageFacts[]): BitmapHealth[] {
  return validate(ownArgument('chain', FACTS, chain))
}

const NODES: Rule<readonly NamedBlockNode[]> = list(
  record<NamedBlockNode>(
    {},
    {
      'node-name': TEXT,
      file: TEXT,
      drv: TEXT,
      image: record({}, { 'virtual-size': SIZE }, { open: true }),
      'dirty-bitmaps': list(
        record(
          { granularity: GRANULARITY, recording: BOOLEAN, persistent: BOOLEAN },
          { name: TEXT, inconsistent: BOOLEAN },
          { open: true },
        ),
      ),
    },
    { open: true },
  ),
)

/**
 * Converts what a running QEMU reports about the bitmaps of a chain, for `validateBitmapChain`.
 * @param nodes the answer to `query-named-block-nodes`
 * @param chain names of the chain's format nodes, top first, as the caller knows them
 * @throws BackupError USAGE, also for a name that no node has
 */
export function factsFromQmp(
  nodes: readonly NamedBlockNode[],
  chain: readonly string[],
): ImageFacts[] {
  const ownNodes = ownArgument('nodes', NODES, nodes)
  const names = ownArgument('chain', list(TEXT), chain)
  const unknown = names.find((name) => !ownNodes.some((node) => node['node-name'] === name))
  if (unknown !== undefined) throw argumentError('chain', `there is no node '${unknown}'`)
  return factsOf(ownNodes, names)
}
