/**
 * A run in a process of its own, to be killed: `one-run.js CONNECT DOMAIN RUN SINCE POINT REMOVE succeed|fail`.
 * Says `stored` before it ends its point well.
 */
import { writeSync } from 'node:fs'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'

const [connect, domain, run, since, point, remove, end] = process.argv.slice(2)
const machine = await openLibvirtMachine(domain, { connect })
const disks = [{ name: 'vda', since, checkpoint: point }, { name: 'vdb' }]
// A run that fails has more to remove.
const frozen = await machine.freeze({ disks, run, point, discard: end === 'fail' })
if (end === 'succeed') {
  writeSync(1, 'stored\n')
  await frozen.succeed({ remove: remove === '' ? [] : [remove] })
} else {
  await frozen.fail()
}
