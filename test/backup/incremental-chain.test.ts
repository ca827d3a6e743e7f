import t from 'tap'
import { randomChanges } from '../support/changes.ts'
import { History } from '../support/history.ts'

const KIB = 2 ** 10
const MIB = 2 ** 20

t.test('chains of a full backup and five increments', async (t) => {
  for (const clusterSize of [4 * KIB, 64 * KIB, 2 * MIB]) {
    for (const granularity of [4 * KIB, 64 * KIB, MIB]) {
      const name = `clusters of ${clusterSize / KIB} KiB, granules of ${granularity / KIB} KiB`
      await t.test(name, async (t) => {
        const size = 12 * MIB + 37 * 512
        const history = new History(t, size, granularity, { clusterSize })
        for (let round = 0; round <= 5; round++) {
          history.change(
            ...randomChanges(size, round === 0 ? 40 : 8, clusterSize + granularity + round),
          )
          await history.point()
        }
        await history.restoreAll()
      })
    }
  }
})
