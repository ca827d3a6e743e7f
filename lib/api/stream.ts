import {
  CLUSTER_SIZE_OPTIONS,
  COPY_OPTIONS,
  OPEN_OPTIONS,
  TABLE_OPTIONS,
  type TableOptions,
} from '../options.ts'
import { checkOptions, option, ownArgument, PATH, type SchemaFor, TEXT } from '../schema.ts'
import type { CustomSource } from '../source/custom-source.ts'
import type { ImageStream, StreamBacking, StreamOptions } from '../stream/image-stream.ts'
import { Call } from './call.ts'
import { SOURCE } from './rules.ts'

/** Options of `fullBackupStream`; sizes in bytes. */
export type FullStreamOptions = StreamOptions

/** Options of `incrementalBackupStream`; sizes in bytes. One of `backing` and `backingName` is needed. */
export interface IncrementalStreamOptions extends Omit<StreamOptions, 'snapshot'>, TableOptions {
  /** The bitmap with the changes since the previous backup; a custom source reports them itself. */
  bitmap?: string
  /** Path of the previous backup, whose virtual size and format are looked up. */
  backing?: string
  /** Its name as the image records it. Default: that of `backing`, without its directory. */
  backingName?: string
}

const { force: _, ...COPY } = COPY_OPTIONS

export const FULL_STREAM_OPTIONS: SchemaFor<FullStreamOptions> = {
  ...OPEN_OPTIONS,
  ...CLUSTER_SIZE_OPTIONS,
  ...COPY,
}

/** A bitmap covers the writes up to now, not up to a snapshot. */
const { snapshot: _snapshot, ...SINCE_OPTIONS } = FULL_STREAM_OPTIONS

export const BACKING_NAME_OPTION = option(
  TEXT,
  "the name of the previous backup as a streamed image records it; default: PREVIOUS's without its directory",
  { value: 'name' },
)

export const INCREMENTAL_STREAM_OPTIONS: SchemaFor<IncrementalStreamOptions> = {
  backing: option(PATH, 'the previous backup, whose size and format are looked up', {
    value: 'previous',
  }),
  backingName: BACKING_NAME_OPTION,
  ...SINCE_OPTIONS,
  ...TABLE_OPTIONS,
}

/**
 * Makes a qcow2 image of a whole disk as a stream: in one pass over the data, from the first byte to the
 * last, in bounded memory. The layout follows from the disk's extents, which are looked up first; so the
 * size is known, and what turns out to be zero while it is read is stored all the same. Nothing is
 * compressed: leave that to what takes the stream.
 * @param source path of a raw or qcow2 image or of a block device, an NBD URI, the URL of an
 * imageio server's image, or a custom source
 * @throws BackupError before the stream begins. Later failures destroy the stream, and reject `done`
 */
export async function fullBackupStream(
  source: string | CustomSource,
  options: FullStreamOptions = {},
): Promise<ImageStream> {
  const checked = checkOptions(FULL_STREAM_OPTIONS, options) as FullStreamOptions
  return await open(source, checked)
}

/**
 * Like fullBackupStream, the changes since the previous backup, as recorded by a dirty bitmap. The image
 * records the previous backup as its backing file, by a name that need not lead anywhere yet.
 * @param source a qcow2 image that holds the bitmap, an NBD export that offers it, an imageio
 * image, whose ticket has one, or a custom source, whose extents carry `dirty`
 * @throws BackupError as fullBackupStream; USAGE if neither `backing` nor `backingName` is given
 */
export async function incrementalBackupStream(
  source: string | CustomSource,
  options: IncrementalStreamOptions,
): Promise<ImageStream> {
  const { backing, backingName, ...rest } = checkOptions(
    INCREMENTAL_STREAM_OPTIONS,
    options,
  ) as IncrementalStreamOptions
  return await open(source, rest, { path: backing, name: backingName })
}

async function open(
  source: string | CustomSource,
  options: StreamOptions & TableOptions,
  previous?: StreamBacking,
): Promise<ImageStream> {
  const own = ownArgument('source', SOURCE, source)
  const call = new Call(typeof own === 'string' ? own : own.name, options.signal)
  const onProgress = call.callback('onProgress', options.onProgress)
  return await call.run(async () => {
    const { openImageStream } = await import('../stream/image-stream.ts')
    const from = call.source(own)
    return await openImageStream({ from, options: { ...options, onProgress }, previous })
  })
}
