import { backingSteps } from '../../edit/backing-steps.ts'
import { prepareEdit, prepareHeaderEdit, reopened } from '../../edit/edited-image.ts'
import { foreignFeatures } from '../../edit/header-steps.ts'
import { BackupError, ioError, throwIfAborted, unsupported } from '../../errors.ts'
import { MAX_BACKING_NAME } from '../../format/qcow2/constants.ts'
import type { RecordedBacking } from '../../format/qcow2/encode-backing.ts'
import { filesOf } from '../../image/image-chain.ts'
import { READING, SHARED_READING, WRITING } from '../../image/locks.ts'
import { runSteps } from '../../image/steps.ts'
import { requireApart } from '../../image/storage.ts'
import type { ControlOptions } from '../../options.ts'
import { fullName } from '../../qemu-img/filename.ts'
import {
  closeChain,
  type OpenChain,
  type OpenChainOptions,
  openChain,
} from '../../qemu-img/qemu-chain.ts'
import { encodeText } from '../../text.ts'
import type { ChangeDisk } from '../changes/batch.ts'
import { ByteCounter } from '../changes/changes.ts'
import { changeDisk } from '../changes/write-changes.ts'
import { keepContent } from './keep-content.ts'
import { RebaseProgress } from './rebase-progress.ts'

/** What an image is to build on. */
export interface NewBacking {
  /** Its name as the image records it, relative to the directory of the image. Default: it has none. */
  file?: string
  /** Recorded too. */
  format?: string
}

export interface RebaseOptions
  extends Pick<OpenChainOptions, 'format' | 'allowPaths' | 'backingFormat' | 'forceShare' | 'warn'>,
    ControlOptions {
  /** Change nothing but the name: what the guest sees stays the same only if the content does. */
  unsafe?: boolean
  /** How the image is written to; for tests. */
  disk?: (disk: ChangeDisk) => ChangeDisk
}

/** What a rebase did. */
export interface RebaseResult {
  image: string
  /** The name that is recorded now; missing: the image builds on nothing. */
  backing?: string
  /** Guest bytes that were copied into the image as data, and as zero. */
  dataBytes: number
  zeroBytes: number
}

/**
 * Lets an image build on another backing file, or on none. What the guest would see otherwise over that
 * one is copied into the image first. In the end one write of a sector changes the header: until then
 * the image builds on what it did, and reads as it did, whenever this ends.
 * @param name path of a qcow2 image, which nobody else has open
 * @throws QemuImgError if an image cannot be opened; BackupError, its `qemu` being what qemu-img says:
 * BAD_BITMAP, BAD_IMAGE, BAD_TARGET, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED
 */
export async function rebaseImage(
  name: string,
  backing: NewBacking | undefined,
  options: RebaseOptions = {},
): Promise<RebaseResult> {
  const { format, allowPaths, backingFormat, warn, signal, unsafe = false } = options
  const access = { format, allowPaths, backingFormat, warn, signal, writable: true }
  const use = (_format: string, depth: number, isDataFile: boolean) =>
    depth === 0 && !isDataFile ? WRITING : READING
  const chain = await openChain(name, access, { backingFiles: !unsafe, use })
  let next: OpenChain | undefined
  try {
    requireKnownFormat(backing)
    if (!unsafe && backing?.file) next = await openBacking(backing, chain, options)
    const wanted = requireNameable(chain, backing)
    const [file, ...others] = filesOf([...chain.images, ...(next?.images ?? [])])
    await requireApart(file, others)
    const opened = unsafe ? await prepareHeaderEdit(file) : await prepareEdit(file, options)
    const counter = new ByteCounter()
    const progress = new RebaseProgress(counter, options.onProgress)
    const plain = changeDisk(opened, filesOf(chain.images), {
      signal,
      onProgress: ({ dataBytes }) => progress.copying(dataBytes),
    })
    const disk = options.disk?.(plain) ?? plain
    await runSteps(disk, [foreignFeatures(opened)])
    let image = await reopened(opened)
    if (!unsafe) {
      const after = [chain.images[0], ...(next?.images ?? [])]
      const work = { ...options, disk, counter, progress }
      image = await keepContent(image, { before: chain.images, after }, work)
    }
    throwIfAborted(signal, file.path)
    await runSteps(disk, backingSteps(image, wanted))
    const { dataBytes, zeroBytes } = counter
    return { image: name, ...(wanted && { backing: wanted.file }), dataBytes, zeroBytes }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).syscall ? ioError(name, error) : error
  } finally {
    if (next) await closeChain(next)
    await closeChain(chain)
  }
}

/**
 * Opens what an image is to build on: the name leads from the directory of the image.
 * @throws QemuImgError
 */
async function openBacking(
  { file: given = '', format }: NewBacking,
  { images }: OpenChain,
  { allowPaths, backingFormat, warn, signal, forceShare }: RebaseOptions,
): Promise<OpenChain> {
  const path = fullName(given, images[0].path)
  const access = { format, allowPaths, backingFormat, warn, signal }
  return await openChain(path, access, {
    named: `new backing file '${given}'`,
    use: () => (forceShare ? SHARED_READING : READING),
  })
}

/** @throws BackupError USAGE */
function requireKnownFormat({ format }: NewBacking = {}): void {
  if (format === undefined || format === 'raw' || format === 'qcow2') return
  throw new BackupError('USAGE', 'backing', `format '${format}' is not supported`, {
    argument: 'backing',
    qemu: `Invalid format name: '${format}'`,
  })
}

/**
 * What an image is to record of its new backing file.
 * @throws BackupError UNSUPPORTED, USAGE: QEMU would not record that either
 */
function requireNameable(
  { images: [{ file, header }] }: OpenChain,
  backing: NewBacking | undefined,
): RecordedBacking | undefined {
  const { file: name, format } = backing ?? {}
  const cannot = (why: string) =>
    `Could not change the backing file to '${name ?? '(null)'}': ${why}`
  if (!header) {
    throw unsupported(file.path, 'is raw and builds on nothing', cannot('Operation not supported'))
  }
  if (name === undefined || name === '') return undefined
  if (format === undefined) {
    throw new BackupError('USAGE', 'backing', 'its format is missing', {
      argument: 'backing',
      qemu: cannot('backing format must be specified'),
    })
  }
  if (encodeText(name).length > MAX_BACKING_NAME) {
    const why = `its name is longer than ${MAX_BACKING_NAME} bytes`
    throw new BackupError('USAGE', 'backing', why, {
      argument: 'backing',
      qemu: cannot('Invalid argument'),
    })
  }
  if (header.dataFileRaw) {
    const why = 'its data file is readable by itself, so it cannot have a backing file'
    throw unsupported(file.path, why, cannot('Invalid argument'))
  }
  return { file: name, format }
}
