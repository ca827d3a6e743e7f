/**
 * A program that calls us serves others meanwhile: no call keeps its event loop from turning for long.
 * What counts is processor time, which does not depend on what else the machine does.
 */
import { join } from 'node:path'
import t from 'tap'
import { isInTime } from '../support/bounds.ts'
import { longestStretch } from '../support/event-loop.ts'
import { qemuImg, run } from '../support/qemu.ts'

/** Milliseconds: five times as long as our turns, for garbage collection and compilation. */
const MAX_STRETCH_MS = 50
const PROGRAM = join(import.meta.dirname, 'stretches.js')

t.setTimeout(180_000)

t.test('work that yields to nobody is seen', async (t) => {
  const busy = async () => {
    const since = process.cpuUsage()
    const used = () => {
      const { user, system } = process.cpuUsage(since)
      return (user + system) / 1000
    }
    while (used() < 4 * MAX_STRETCH_MS);
  }
  t.ok((await longestStretch(busy)) > MAX_STRETCH_MS)
})

t.test('calls that have much to do let the event loop turn', async (t) => {
  const directory = t.testdir()
  const { status, stdout, stderr } = run(process.execPath, [PROGRAM, directory])
  t.equal(status, 0, stderr)
  for (const [call, longest] of Object.entries(JSON.parse(stdout))) {
    t.ok(
      isInTime(Number(longest) / 1000, MAX_STRETCH_MS / 1000),
      `${call}: ${Number(longest).toFixed(0)} ms`,
    )
  }
  for (const image of [
    'fragmented',
    'with-bitmaps',
    'many',
    'edited',
    'empty',
    'base',
    'rebased',
  ]) {
    t.match(qemuImg('check', join(directory, `${image}.qcow2`)), 'No errors were found', image)
  }
})
