import { DATA_OVER_AND_OVER, DataWork } from '../format/qcow2/work.ts'
import type { Content } from './content.ts'

/** Bounds the bytes read from each file of a comparison: an image may name a cluster many times. */
export class ContentWork {
  readonly #works = new Map<string, DataWork>()

  /**
   * Counts content that is to be read, in the order of the guest.
   * @param start guest offset, bytes
   * @returns why it is not to be read, if it is more than a sound image can name
   */
  refusal(content: Content, start: number, length: number): string | undefined {
    if (content.kind !== 'data' && content.kind !== 'stream') return undefined
    const { identity, size } = content.file
    let work = this.#works.get(identity)
    if (!work) {
      work = new DataWork(size)
      this.#works.set(identity, work)
    }
    const allowed =
      content.kind === 'data'
        ? work.allowsData(start, length)
        : work.allowsStream(start - content.stream.within, content.stream.offset)
    return allowed ? undefined : DATA_OVER_AND_OVER
  }
}
