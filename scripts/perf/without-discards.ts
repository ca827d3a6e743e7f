/**
 * A full backup as ours, but that nothing is discarded from the temporary image:
 *   without-discards.js MONITOR REPOSITORY NBD_SERVER SCRATCH RATE POINT
 */
import { backupMachine } from '../../lib/live/backup.ts'
import type { Machine } from '../../lib/machine/machine.ts'
import { openMachine } from '../../lib/machine/open-machine.ts'
import { Repository } from '../../lib/repository/repository.ts'

const [monitor, repository, nbdServer, scratch, rate, checkpoint] = process.argv.slice(2)

const machine = await openMachine(`qmp:${monitor}`, { name: 'live', nbdServer })
const kept: Machine = {
  title: machine.title,
  name: machine.name,
  disks: (...args) => machine.disks(...args),
  leftovers: (...args) => machine.leftovers(...args),
  clean: (...args) => machine.clean(...args),
  close: () => machine.close(),
  async freeze(...args) {
    const point = await machine.freeze(...args)
    const { time, versions, notes, lost } = point
    return {
      ...{ time, versions, notes, lost },
      disks: point.disks.map((disk) => ({ ...disk, discardGranule: undefined })),
      whyLost: async () => await point.whyLost?.(),
      succeed: (options) => point.succeed(options),
      fail: () => point.fail(),
    }
  },
}
const options = { full: true, scratch, rateLimit: Number(rate), checkpoint }
await backupMachine(kept, await Repository.make(repository), options)
await machine.close()
