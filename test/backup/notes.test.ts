import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { createSnapshot, fullBackup, incrementalBackup, restore } from '../../lib/index.ts'
import { CLI } from '../support/cli.ts'
import { makeRaw } from '../support/disks.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { inMountNamespace } from '../support/namespace.ts'
import { qemuImg } from '../support/qemu.ts'

t.setTimeout(180_000)

const MIB = 2 ** 20

/**
 * Copies a file system twice, by a loop device over the file and by the file itself.
 * @param how what is done with the device, whose name is `$device`, before it is copied
 * @returns the notes of both
 */
function notesOf(test: Test, how: string): { device: string; notes: string[][] } {
  const directory = test.testdir({ at: {} })
  makeRaw(join(directory, 'disk.raw'), 8 * MIB, [])
  const script = `
    cd "$1"; shift
    mkfs.ext4 -q -F disk.raw
    device=$(losetup --find --show disk.raw)
    trap 'umount at 2>/dev/null || true; losetup --detach $device' EXIT
    ${how}
    echo "$device"
    "$@" full "$device" device.qcow2 --json | tr '\\n' ' '; echo
    "$@" full disk.raw file.qcow2 --json | tr '\\n' ' '; echo`
  const result = inMountNamespace(script, directory, process.execPath, CLI)
  test.equal(result.status, 0, result.stderr)
  const [device, ...results] = result.stdout.trim().split('\n')
  return { device, notes: results.map((line) => JSON.parse(line).notes ?? []) }
}

const WHY = 'is mounted for writing: the copy may mix several points in time'

t.test('a source that is mounted for writing is noted', { skip: NO_LOOP_DEVICES }, async (t) => {
  const mounted = notesOf(t, 'mount $device at')
  t.strictSame(mounted.notes, [[`${mounted.device}: ${WHY}`], [`disk.raw: ${WHY}`]])

  const readOnly = notesOf(t, 'mount -o ro $device at')
  t.strictSame(readOnly.notes, [[], []], 'for reading only')

  const remounted = notesOf(t, 'mount -o ro $device at; mount -o remount,rw at')
  t.strictSame(remounted.notes, [[`${remounted.device}: ${WHY}`], [`disk.raw: ${WHY}`]])

  const unmounted = notesOf(t, 'mount $device at; umount at')
  t.strictSame(unmounted.notes, [[], []], 'not any more')
})

t.test('a source of no bytes is noted', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'empty.raw'), 0, [])
  const { notes } = await fullBackup(disk, join(t.testdirName, 'image.qcow2'))
  t.strictSame(notes, [`${disk}: is empty, a disk of 0 bytes`])
})

t.test('an image that is marked as corrupt is noted, wherever it is read', async (t) => {
  const path = (name: string) => join(t.testdirName, name)
  t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', path('disk.qcow2'), '1M')
  qemuImg('bitmap', '--add', path('disk.qcow2'), 'b')
  await fullBackup(path('disk.qcow2'), path('full.qcow2'))
  const mark = (name: string) => {
    const bytes = readFileSync(path(name))
    bytes[79] |= 2
    writeFileSync(path(name), bytes)
  }
  const noted = (name: string) => `${path(name)}: is marked as corrupt: its content may be wrong`

  mark('full.qcow2')
  const options = { bitmap: 'b', backing: path('full.qcow2') }
  const increment = await incrementalBackup(path('disk.qcow2'), path('inc.qcow2'), options)
  t.strictSame(increment.notes, [noted('full.qcow2')], 'as the previous backup')
  const restored = await restore(path('inc.qcow2'), path('restored.raw'))
  t.strictSame(restored.notes, [noted('full.qcow2')], 'below the backup')

  mark('disk.qcow2')
  const { notes } = await fullBackup(path('disk.qcow2'), path('again.qcow2'))
  t.strictSame(notes, [noted('disk.qcow2')], 'as the source')
  const snapshot = await createSnapshot(path('disk.qcow2'), path('overlay.qcow2'))
  t.strictSame(snapshot.notes, [noted('disk.qcow2')], 'below an overlay')
})
