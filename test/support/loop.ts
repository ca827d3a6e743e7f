/** Block devices for tests: loop devices over files. */
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { run } from './qemu.ts'
import { skipUnlessRoot } from './root.ts'

/** For tap's `skip`. That root cannot make loop devices is a failure, not a skip. */
export const NO_LOOP_DEVICES = skipUnlessRoot('make loop devices')

/**
 * A loop device of `size` bytes over a new file, which reads as zero; removed after the test.
 * @param sectorSize the device's logical block size, bytes
 */
export function loopDevice(test: Test, name: string, size: number, sectorSize = 512): string {
  const backing = join(test.testdirName, `${name}.device`)
  writeFileSync(backing, '')
  truncateSync(backing, size)
  const args = ['--find', '--show', '--sector-size', String(sectorSize), backing]
  const { status, stdout, stderr } = run('losetup', args)
  if (status !== 0) throw new Error(`losetup ended with ${status}: ${stderr}`)
  const device = stdout.trim()
  test.teardown(() => run('losetup', ['--detach', device]))
  return device
}
