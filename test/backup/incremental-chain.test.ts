import t from 'tap'
import { randomChanges } from '../support/changes.ts'
import { effort, someOf } from '../support/effort.ts'
import { History } from '../support/history.ts'

const KIB = 2 ** 10
const MIB = 2 ** 20

t.test('chains of a full backup and its increments are restored byte for byte', async (t) => {
  for (const [i, clusterSize] of [4 * KIB, 64 * KIB, 2 * MIB].entries()) {
    for (const granularity of someOf([MIB, 4 * KIB, 64 * KIB], i)) {
      const name = `clusters of ${clusterSize / KIB} KiB, granules of ${granularity / KIB} KiB`
      await t.test(name, async (t) => {
        const size = 12 * MIB + 37 * 512
        const history = new History(t, size, granularity, { clusterSize })
        for (let round = 0; round <= effort(2, 5); round++) {
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
