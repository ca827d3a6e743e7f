/** A disk whose point in time QEMU keeps in a scratch file while a guest goes on writing. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Range } from '../../lib/extents/range-set.ts'
import { native } from '../../lib/native.ts'
import { qemuImg, qemuIo } from './qemu.ts'
import { type StorageDaemon, startStorageDaemon } from './storage-daemon.ts'

export interface FrozenDisk {
  readonly daemon: StorageDaemon
  /** The point in time. */
  readonly uri: string
  /** A raw file with the point in time. */
  readonly expected: string
  /** Has the guest write, with commands of qemu-io; resolves when it has. */
  write(...commands: string[]): void
  /** Has the guest write all the time, until the test ends. */
  keepWriting(commands: readonly string[]): ChildProcess
  /** Bytes that the scratch file takes. */
  scratchBytes(): number
  /** Ranges whose old content it holds. */
  held(): Promise<Range[]>
}

/**
 * Freezes a qcow2 disk in a storage daemon, as a backup job with `sync: none` does it.
 * @param since qemu-io commands of the guest, recorded by bitmap `since`, right before the instant
 */
export async function freezeDisk(
  t: Test,
  disk: string,
  size: number,
  since?: readonly string[],
): Promise<FrozenDisk> {
  const [scratch, expected] = ['scratch.raw', 'expected.raw'].map((name) =>
    join(t.testdirName, name),
  )
  writeFileSync(scratch, '')
  truncateSync(scratch, size)
  const daemon = await startStorageDaemon(t)
  await daemon.open('disk', disk)
  if (since) await daemon.addBitmap('disk', 'since')
  const guestUri = await daemon.export('disk', { name: 'guest', writable: true })
  const guest = { path: guestUri, format: 'raw' } as const
  if (since) qemuIo(guest, ...since)
  const file = { driver: 'file', 'node-name': 'scratch', filename: scratch, discard: 'unmap' }
  await daemon.qmp('blockdev-add', file)
  if (since) await daemon.qmp('block-dirty-bitmap-disable', { node: 'disk', name: 'since' })
  await daemon.qmp('blockdev-backup', {
    ...{ 'job-id': 'pull', device: 'disk', target: 'scratch', sync: 'none' },
    'filter-node-name': 'filter',
  })
  const access = { driver: 'snapshot-access', 'node-name': 'point', file: 'filter' }
  await daemon.qmp('blockdev-add', { ...access, discard: 'unmap' })
  const bitmaps = since && [{ node: 'disk', name: 'since' }]
  const uri = await daemon.export('point', { name: 'point', writable: true, bitmaps })
  qemuImg('convert', '-f', 'raw', '-O', 'raw', uri, expected)
  const fd = openSync(scratch, 'r')
  t.teardown(() => closeSync(fd))
  return {
    daemon,
    uri,
    expected,
    write: (...commands) => void qemuIo(guest, ...commands),
    keepWriting(commands) {
      const args = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), guestUri]
      const child = spawn('qemu-io', args, { stdio: 'ignore' })
      t.teardown(() => child.kill())
      return child
    },
    scratchBytes: () => statSync(scratch).blocks * 512,
    async held() {
      const held: Range[] = []
      for (let at = 0; at < size; ) {
        const runs = await native().fileExtents(fd, at, size, 1024)
        for (let i = 0; i < runs.length; i += 3) {
          if (runs[i + 2] !== 0) held.push({ start: runs[i], length: runs[i + 1] })
          at = runs[i] + runs[i + 1]
        }
      }
      return held
    },
  }
}
