import type { Publication } from './target.ts'

/** The steps of publishing for a target written in place: there is nothing to do. */
export const IN_PLACE: Omit<Publication, 'path' | 'sync' | 'discard'> = {
  async place() {},
  async settle() {},
  async revert() {
    return undefined
  },
  async finish() {
    return undefined
  },
}
