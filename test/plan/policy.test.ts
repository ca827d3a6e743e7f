import t from 'tap'
import { FRESH, OVERLAY } from '../../lib/plan/policy.ts'

t.test(
  'what is read is copied, what reads as zero is left out: for every kind of piece',
  async (t) => {
    t.strictSame(FRESH, {
      data: 'copy',
      deflate: 'copy',
      zstd: 'copy',
      zero: 'skip',
      hole: 'skip',
    })
  },
)

t.test(
  'over a backup what is dirty is recorded, zeroes unread, and what is clean is left to it',
  async (t) => {
    t.strictSame(OVERLAY, {
      data: 'copy',
      deflate: 'copy',
      zstd: 'copy',
      zero: 'zero',
      hole: 'zero',
      clean: 'skip',
    })
  },
)
