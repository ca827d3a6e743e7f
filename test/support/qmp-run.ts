/** One backup of a machine over QMP, in a process that a test kills. Its task is its argument. */
import { join } from 'node:path'
import { openQmpMachine } from '../../lib/machine/qmp/open.ts'
import { backUp } from './qmp-point.ts'

const { monitor, disks, run, directory } = JSON.parse(process.argv[2])
const machine = await openQmpMachine(monitor)
const point = await machine.freeze({ disks, run, point: 'new' })
for (const disk of point.disks) {
  const backing = disk.open.bitmap && join(directory, `${disk.name}.backup`)
  await backUp(disk, join(directory, `${disk.name}.killed`), backing)
}
await point.succeed({ remove: ['old'] })
await machine.close()
