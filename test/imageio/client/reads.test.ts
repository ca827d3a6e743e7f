import t from 'tap'
import { joinedReads, MAX_GAP, MAX_REQUEST } from '../../../lib/imageio/client/reads.ts'

const KIB = 1024
const reads = (...pairs: [number, number][]) => pairs.map(([start, length]) => ({ start, length }))

t.test('near-by reads are joined', async (t) => {
  const near = reads([0, 64 * KIB], [64 * KIB, 64 * KIB], [128 * KIB + MAX_GAP, 512])
  t.equal(joinedReads(near, 64), 3)
  t.equal(joinedReads(near, 2), 2, 'no more than wanted')
  t.equal(joinedReads(reads([0, 512], [512 + MAX_GAP + 1, 512]), 64), 1, 'but not far ones')
  t.equal(joinedReads(reads([0, 512], [256, 512]), 64), 1, 'nor those over each other')
  const large = reads([0, MAX_REQUEST / 2], [MAX_REQUEST / 2, MAX_REQUEST / 2], [MAX_REQUEST, 1])
  t.equal(joinedReads(large, 64), 2, 'nor more than a request has')
  t.equal(joinedReads(reads([0, 2 * MAX_REQUEST]), 64), 1)
})
