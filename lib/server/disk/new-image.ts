import { openSession, publishSessions } from '../../backup/session.ts'
import { Stash } from '../../copy/stash.ts'
import { judge } from '../../copy/target/judge.ts'
import { type Location, locate } from '../../copy/target/location.ts'
import { openTarget, publishAll } from '../../copy/target/open-target.ts'
import { ioError } from '../../errors.ts'
import type { Range } from '../../extents/range-set.ts'
import { descriptorPath } from '../../files.ts'
import { identityOf, type SourceFile } from '../../image/file.ts'
import { native } from '../../native.ts'
import { readContent } from '../../source/read-content.ts'
import type { DiskWriter, ServedDisk, ServedExtent } from './served-disk.ts'

/** The image to make. */
export interface NewImage {
  path: string
  format: 'raw' | 'qcow2'
  /** Bytes, a multiple of 512. */
  size: number
}

/** A file in which the disk is collected, and what becomes of it. */
interface Collector {
  readonly file: SourceFile
  /** Gives the image its name. */
  publish(): Promise<void>
  /** Never fails. */
  discard(): Promise<void>
}

const NOTHING_READ = { force: false, replaces: 'image', sources: [] } as const

/** Runs that are asked for at a time. */
const RUNS = 4096
const ZEROES = Buffer.alloc(2 ** 20)

/**
 * Begins a new image, which is collected as a sparse raw file without a name, for it comes in any order: see
 * docs/adr/0014-uploads-through-a-raw-file.md.
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IO
 */
export async function openNewImage(image: NewImage): Promise<ServedDisk> {
  const collector = image.format === 'raw' ? await collectRaw(image) : await collectQcow2(image)
  return new NewImageDisk(collector)
}

async function collectRaw({ path, size }: NewImage): Promise<Collector> {
  const target = await openTarget(path, NOTHING_READ)
  const discard = () => target.discard()
  try {
    // Without force there is nothing else.
    const handle = target.handle!
    await handle.truncate(size)
    const identity = identityOf(await handle.stat({ bigint: true }))
    return {
      file: { kind: 'file', path, handle, size, identity },
      async publish() {
        await publishAll([[target]])
      },
      discard,
    }
  } catch (error) {
    await discard()
    throw ioError(path, error)
  }
}

async function collectQcow2({ path, size }: NewImage): Promise<Collector> {
  // The path is resolved now; each is closed by what uses it.
  const [near, to] = [await locate(path), await locate(path)]
  let stash: Stash
  try {
    await judge(to, NOTHING_READ)
    stash = await Stash.beside(near, size)
  } catch (error) {
    await closeBoth(near, to)
    throw ioError(path, error)
  }
  let isTaken = false
  return {
    file: stash.file,
    async publish() {
      const session = await openSession({
        from: descriptorPath(stash.file.handle),
        to: path,
        format: 'qcow2',
        replaces: 'image',
        options: { format: 'raw' },
        openTarget: async () => {
          isTaken = true
          return await openTarget(to, NOTHING_READ)
        },
      })
      try {
        await session.copy()
        await publishSessions([session])
      } finally {
        await session.discard()
      }
    },
    async discard() {
      await stash.discard()
      await near.directory.close().catch(() => {})
      if (!isTaken) await to.directory.close().catch(() => {})
    },
  }
}

async function closeBoth(...locations: readonly Location[]): Promise<void> {
  for (const { directory } of locations) await directory.close().catch(() => {})
}

/** A disk that is written, and read back, before it has a name. */
class NewImageDisk implements ServedDisk {
  readonly size: number
  readonly hasDirty = false
  readonly unit = 1
  readonly writer: DiskWriter
  readonly #collector: Collector
  /** Writes begun, how many of them are over, and how many had been when the last flush began. */
  #begun = 0
  #ended = 0
  #flushed = -1

  constructor(collector: Collector) {
    this.#collector = collector
    this.size = collector.file.size
    this.writer = {
      write: (start, bytes) => this.#counted(() => this.#write(start, bytes)),
      zero: (start, length) => this.#counted(() => this.#zero(start, length)),
      flush: () => this.#flush(),
    }
  }

  read(range: Range): AsyncIterable<Buffer> {
    const { file } = this.#collector
    return readContent(whole(range), [file])
  }

  async *extents(
    _context: 'zero' | 'dirty',
    { start, length }: Range,
  ): AsyncGenerator<readonly ServedExtent[]> {
    const { handle, path } = this.#collector.file
    const end = start + length
    for (let at = start; at < end; ) {
      const runs = await native()
        .fileExtents(handle.fd, at, end, RUNS)
        .catch((error) => {
          throw ioError(path, error)
        })
      const out: ServedExtent[] = []
      for (let i = 0; i < runs.length; i += 3) {
        const zero = runs[i + 2] === 0
        out.push({ start: runs[i], length: runs[i + 1], zero, hole: zero, dirty: false })
      }
      const last = out[out.length - 1]
      at = last.start + last.length
      yield out
    }
  }

  async finish(): Promise<boolean> {
    if (this.#flushed !== this.#begun) return false
    await this.#collector.publish()
    return true
  }

  async close(): Promise<void> {
    await this.#collector.discard()
  }

  async #counted(work: () => Promise<void>): Promise<void> {
    this.#begun++
    try {
      await work()
    } catch (error) {
      throw ioError(this.#collector.file.path, error)
    } finally {
      // Who was told that it failed, and goes on, has written it anew.
      this.#ended++
    }
  }

  async #write(start: number, bytes: Buffer): Promise<void> {
    const { handle } = this.#collector.file
    for (let done = 0; done < bytes.length; ) {
      const rest = bytes.length - done
      done += (await handle.write(bytes, done, rest, start + done)).bytesWritten
    }
  }

  async #zero(start: number, length: number): Promise<void> {
    const { handle } = this.#collector.file
    if ((await native().punchFile(handle.fd, Float64Array.of(start, length))) === 1) return
    const end = start + length
    for (let at = start; at < end; at += ZEROES.length) {
      await this.#write(at, ZEROES.subarray(0, Math.min(ZEROES.length, end - at)))
    }
  }

  async #flush(): Promise<void> {
    const before = this.#ended
    const { handle, path } = this.#collector.file
    await handle.datasync().catch((error) => {
      throw ioError(path, error)
    })
    this.#flushed = Math.max(this.#flushed, before)
  }
}

async function* whole({ start, length }: Range) {
  yield [{ kind: 'data' as const, start, length, store: 0, offset: start }]
}
