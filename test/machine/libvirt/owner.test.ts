/** Whose run something is of, and whether that goes on. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { beginRun, describeOwner, isGoingOn, ownerIn } from '../../../lib/machine/libvirt/owner.ts'

const RUN = '0123456789ab'

t.test('a run goes on as long as its process does', async (t) => {
  const { mark, end } = await beginRun(RUN)
  const own = ownerIn(`/var/tmp/${mark}/vda.scratch`)!
  t.match(own, { mark, run: RUN, pid: process.pid })
  t.match(describeOwner(own), /^run 0123456789ab of process \d+ on host \S+$/)
  t.ok(await isGoingOn(own))
  t.ok(await isGoingOn({ ...own, host: 'other-0000', pid: 1 }), 'of another host: not known')
  t.ok(await isGoingOn({ ...own, boot: `${own.boot.slice(0, 4)}0000` }), 'of another container')
  t.notOk(await isGoingOn({ ...own, boot: '00000000' }), 'from before a reboot')
  t.notOk(await isGoingOn({ ...own, start: '1' }), 'an id that was used again')

  const child = spawn('sleep', ['1000'])
  const start = readFileSync(`/proc/${child.pid}/stat`, 'latin1').split(') ').pop()!.split(' ')[19]
  const other = { ...own, pid: child.pid!, start }
  t.ok(await isGoingOn(other))
  const ended = new Promise((resolve) => child.on('exit', resolve))
  child.kill('SIGKILL')
  await ended
  t.notOk(await isGoingOn(other))

  end()
  t.notOk(await isGoingOn(own), 'this process goes on, its run does not')
  for (const text of ['', 'qcow2-backup-', mark.replace('.', '-'), mark.toUpperCase()]) {
    t.equal(ownerIn(text), undefined, text)
  }
})
