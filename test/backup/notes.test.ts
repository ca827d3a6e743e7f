import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup } from '../../lib/index.ts'
import { CLI } from '../support/cli.ts'
import { makeRaw } from '../support/disks.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { inMountNamespace } from '../support/namespace.ts'

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
