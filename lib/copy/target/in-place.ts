import type { Publication } from './target.ts'

/** The steps of publishing for what is written where it stands: there is nothing to be done. */
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
