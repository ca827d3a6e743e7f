import { basename } from 'node:path'
import type { Readable } from 'node:stream'
import { openBackingChain } from '../backup/backing.ts'
import { bitmapOf } from '../backup/incremental.ts'
import { jobOptions } from '../backup/job-options.ts'
import { corruptNotes, sourceNotes } from '../backup/notes.ts'
import type { CopyResult } from '../backup/types.ts'
import { runCopy } from '../copy/run-copy.ts'
import type { JobOptions, Qcow2Format, RecordedBacking } from '../copy/spec.ts'
import { abortedError, argumentError, BackupError } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import { encodeNewHeader } from '../format/qcow2/new-header.ts'
import type { CopyOptions, ImageOptions, TableOptions } from '../options.ts'
import { planImage } from '../plan/plan.ts'
import { COLUMNS, ROW } from '../plan/rows.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { type OpenOptions, openSource } from '../source/open-source.ts'
import type { Source } from '../source/source.ts'
import { closeAll } from '../source/source-chain.ts'
import { ClusterRuns } from './cluster-runs.ts'
import { DataArea } from './data-area.ts'
import { layOut, type StreamLayout } from './layout.ts'
import { encodeMetadata } from './metadata.ts'
import { Outlet } from './outlet.ts'

/** Options of every stream; sizes in bytes. */
export type StreamOptions = Omit<CopyOptions, 'force'> &
  Pick<ImageOptions, 'clusterSize'> &
  OpenOptions

/** The image that a stream builds on. */
export interface StreamBacking {
  /** Path of the previous backup, of which its virtual size and format are taken. */
  path?: string
  /** The name to record. Default: that of `path` without its directory. */
  name?: string
}

/** Result of a stream that is complete; bytes as in CopyResult. */
export type StreamResult = Pick<
  CopyResult,
  | 'virtualSize'
  | 'dataBytes'
  | 'zeroBytes'
  | 'unchangedBytes'
  | 'fileSize'
  | 'elapsedSeconds'
  | 'notes'
>

/** A qcow2 image as a stream. */
export interface ImageStream {
  /** The image from its first byte to its last. Destroyed with the error if it cannot be completed. */
  readonly stream: Readable
  /** Bytes that the stream will have, known before the first. */
  readonly size: number
  /** Of the disk, bytes. */
  readonly virtualSize: number
  /** Resolves when the last byte was taken; rejects with a BackupError when the stream is not complete. */
  readonly done: Promise<StreamResult>
}

/** What is streamed. */
export interface StreamRequest {
  from: string | CustomSource
  options: StreamOptions & TableOptions
  /** Only what is dirty is stored then. */
  previous?: StreamBacking
}

/**
 * Opens a disk and lays out its image; nothing is read before the stream is.
 * @throws BackupError as openSource and jobOptions; BAD_TARGET if the backing file's name is too long
 */
export async function openImageStream(request: StreamRequest): Promise<ImageStream> {
  const started = performance.now()
  const { from, previous } = request
  const bitmap = previous ? bitmapOf(from, request.options.bitmap) : request.options.bitmap
  const options = { ...request.options, bitmap }
  const source = await openSource(from, options)
  try {
    const notes = await sourceNotes(source)
    const backing = previous && (await backingOf(previous, source, options, notes))
    const job = jobOptions('qcow2', source.size, options, backing)
    const { clusterBits, sharedTables } = job.format
    const runs = new ClusterRuns(2 ** clusterBits)
    for await (const rows of planImage(source, job.format)) {
      options.signal?.throwIfAborted()
      runs.add(rows)
    }
    const layout = layOut(runs, { clusterBits, size: source.size, sharesTables: sharedTables })
    const header = headerOf(layout, backing)
    const outlet = new Outlet(source.name)
    const done = write(source, job, outlet, { header, layout, runs }).then(() => {
      const all = [...notes, ...(source.bitmap?.notes ?? []), ...(source.notes ?? [])]
      return {
        ...bytesOf(layout, runs, backing !== undefined),
        elapsedSeconds: (performance.now() - started) / 1000,
        ...(all.length > 0 && { notes: all }),
      }
    })
    // Whoever reads the stream hears of a failure there.
    done.catch((error) => outlet.stream.destroy(error))
    return {
      stream: outlet.stream,
      size: layout.clusters * 2 ** clusterBits,
      virtualSize: source.size,
      done,
    }
  } catch (error) {
    await source.close()
    if (options.signal?.aborted) throw abortedError(source.name, options.signal)
    throw error
  }
}

interface Image {
  header: Buffer
  layout: StreamLayout
  runs: ClusterRuns
}

async function write(
  source: Source,
  job: JobOptions<Qcow2Format>,
  outlet: Outlet,
  { header, layout, runs }: Image,
): Promise<void> {
  const { signal } = job
  const data = new DataArea(source.name, outlet, storedRanges(layout, runs))
  try {
    await outlet.write(header)
    for (const cluster of encodeMetadata(layout, runs)) {
      signal?.throwIfAborted()
      await outlet.write(cluster)
    }
    const both = signal ? AbortSignal.any([signal, outlet.signal]) : outlet.signal
    await runCopy(
      source,
      { path: source.name, store: data },
      () => withoutZeroes(planImage(source, job.format)),
      { ...job, format: { kind: 'raw' }, signal: both },
    )
    await data.finish()
    await source.checkUnchanged()
    requireWhole(source, outlet, layout)
    await outlet.end()
  } catch (error) {
    if (signal?.aborted) throw abortedError(source.name, signal)
    if (outlet.signal.aborted) throw outlet.signal.reason
    throw data.change ?? error
  } finally {
    await source.close()
  }
}

/** The rows of zeroes are in the tables: the copy need not write them. */
async function* withoutZeroes(plan: AsyncIterable<Float64Array>): AsyncGenerator<Float64Array> {
  for await (const rows of plan) {
    for (let at = 0; at < rows.length; at += COLUMNS) {
      if (rows[at] === ROW.zero) rows[at] = ROW.skip
    }
    yield rows
  }
}

/** Guest bytes that are stored, whole clusters also where the disk ends in one. */
function* storedRanges({ clusterBits }: StreamLayout, runs: ClusterRuns): Generator<Range> {
  const clusterSize = 2 ** clusterBits
  for (const { kind, first, end } of runs) {
    if (kind === 'data') yield { start: first * clusterSize, length: (end - first) * clusterSize }
  }
}

/** Cannot happen; an image that is not as long as was said must not end as if it were. */
function requireWhole(
  { name }: Source,
  { bytes }: Outlet,
  { clusters, clusterBits }: StreamLayout,
): void {
  const expected = clusters * 2 ** clusterBits
  if (bytes === expected) return
  throw new BackupError('INTERNAL', name, `a stream of ${expected} bytes has ${bytes}`)
}

function headerOf(layout: StreamLayout, backing: RecordedBacking | undefined): Buffer {
  const { clusterBits, size, l1, refcountTable } = layout
  const clusterSize = 2 ** clusterBits
  const header = encodeNewHeader({
    ...{ clusterBits, size, backing },
    l1Size: l1.entries,
    l1Offset: l1.entries === 0 ? 0 : l1.first * clusterSize,
    refcountTableOffset: refcountTable.first * clusterSize,
    refcountTableClusters: refcountTable.clusters,
  })
  if (header) return header
  throw argumentError('backingName', 'is too long to be recorded in the first cluster')
}

/**
 * The backing file as it is recorded. Without a path its size is taken to be the disk's: what lies behind
 * its real end reads as zero, as it does on a disk that grew and was not written there.
 * @param notes receives caveats
 */
async function backingOf(
  { path, name }: StreamBacking,
  source: Source,
  { allowPaths, backingFormat, forceShare, signal }: StreamOptions,
  notes: string[],
): Promise<RecordedBacking> {
  if (path === undefined) {
    if (name === undefined) throw argumentError('backing', 'missing; it names the previous backup')
    return { name, format: backingFormat ?? 'qcow2', size: source.size }
  }
  const chain = await openBackingChain(path, { allowPaths, backingFormat, forceShare, signal })
  const { format, layers, images, files } = chain
  notes.push(...corruptNotes(images))
  await closeAll(files)
  return { name: name ?? basename(path), format, size: layers[0].size }
}

function bytesOf(layout: StreamLayout, runs: ClusterRuns, hasBacking: boolean) {
  const { clusterBits, size: virtualSize, clusters } = layout
  const clusterSize = 2 ** clusterBits
  const bytes = { data: 0, zero: 0 }
  for (const { kind, first, end } of runs) {
    bytes[kind] += Math.min(end * clusterSize, virtualSize) - first * clusterSize
  }
  const rest = virtualSize - bytes.data - bytes.zero
  return {
    virtualSize,
    dataBytes: bytes.data,
    zeroBytes: hasBacking ? bytes.zero : rest,
    unchangedBytes: hasBacking ? rest : 0,
    fileSize: clusters * clusterSize,
  }
}
