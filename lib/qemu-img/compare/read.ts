import type { HostFile } from '../block-status/status.ts'
import { Blocks } from './blocks.ts'
import type { Content } from './content.ts'
import { DiskFile, IO_ERROR, memoryToRead, Unreadable } from './disk-file.ts'
import { expand } from './expand.ts'

/** Below this many bytes, reads that follow each other are made larger. */
const SMALL = 2 ** 19

/** What servers answer where they cannot read (NBD protocol, "Error values"). */
const ANSWERED = ['EIO', 'EINVAL', 'ENOMEM', 'EPERM']

/** Aligned memory that reading so many bytes of some content takes. */
export function memoryFor(content: Content, length: number): number {
  switch (content.kind) {
    case 'zero':
    case 'remote':
      return 0
    case 'data':
      return memoryToRead(content.offset, length)
    case 'stream':
      return memoryToRead(content.stream.offset, content.stream.size)
  }
}

/** Reads guest content out of files, which it opens as they come. */
export class ContentReader {
  readonly #direct: boolean
  /** By their descriptors. */
  readonly #files = new Map<number, Promise<OpenedContent>>()

  /** @param direct past the page cache, where files can be */
  constructor(direct: boolean) {
    this.#direct = direct
  }

  /**
   * Reads content that is stored.
   * @param memory aligned, of `memoryFor` bytes; the content may lie in it
   * @throws Unreadable
   */
  async read(
    content: Exclude<Content, { kind: 'zero' }>,
    length: number,
    memory: Buffer,
  ): Promise<Buffer> {
    if (content.kind === 'remote') return await readRemote(content, length)
    const opened = await this.#open(content.file)
    return await opened.read(content, length, memory)
  }

  /** REQUIRES: nothing is read any more. */
  async close(): Promise<void> {
    for (const opened of this.#files.values()) await (await opened).close()
  }

  #open(file: HostFile): Promise<OpenedContent> {
    const { fd } = file.handle
    const known = this.#files.get(fd)
    if (known) return known
    const opened = DiskFile.open(file, this.#direct).then((disk) => new OpenedContent(disk))
    this.#files.set(fd, opened)
    return opened
  }
}

/** A file that content is read from. */
class OpenedContent {
  readonly #file: DiskFile
  readonly #blocks: Blocks

  constructor(file: DiskFile) {
    this.#file = file
    this.#blocks = new Blocks(file)
  }

  async read(
    content: Exclude<Content, { kind: 'zero' | 'remote' }>,
    length: number,
    memory: Buffer,
  ): Promise<Buffer> {
    if (content.kind === 'data') return await this.#stored(content.offset, length, memory)
    const { stream, file } = content
    const stored = await this.#stored(stream.offset, stream.size, memory)
    const cluster = await expand(stored, stream, file.path)
    if (!cluster) throw new Unreadable(IO_ERROR)
    return cluster.subarray(stream.within, stream.within + length)
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  #stored(offset: number, length: number, memory: Buffer): Promise<Buffer> {
    const read = length < SMALL ? this.#blocks.read(offset, length) : undefined
    return read ?? this.#file.read(offset, length, memory)
  }
}

async function readRemote(
  { remote, offset }: Extract<Content, { kind: 'remote' }>,
  length: number,
): Promise<Buffer> {
  try {
    return await remote.read(offset, length)
  } catch (error) {
    // A server that cannot read answers so; of one that is lost nothing more can be said.
    if (!ANSWERED.includes((error as { errno?: string }).errno ?? '')) throw error
    throw new Unreadable((error as Error).message, { cause: error })
  }
}
