import t from 'tap'
import { FRESH } from '../../lib/plan/policy.ts'

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
