/** A commit on a file system whose files can share blocks. */
import { mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { commitImage } from '../../lib/index.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const M = 2 ** 20

/** Does something in a file system with reflinks. */
async function onXfs(t: Test, use: (directory: string) => Promise<void>): Promise<void> {
  const device = join(t.testdir(), 'device')
  const directory = mkdtempSync(join(tmpdir(), 'xfs-'))
  writeFileSync(device, '')
  truncateSync(device, 512 * M)
  try {
    const made = run('mkfs.xfs', ['-q', '-m', 'reflink=1', device])
    if (made.status !== 0) throw new Error(made.stderr)
    const mounted = run('mount', ['-o', 'loop', device, directory])
    if (mounted.status !== 0) throw new Error(mounted.stderr)
    try {
      await use(directory)
    } finally {
      run('umount', [directory])
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Bytes of a file system that are in use. */
function used(directory: string): number {
  run('sync', ['-f', directory])
  const { blocks, bfree, bsize } = statfsSync(directory)
  return (blocks - bfree) * bsize
}

for (const format of ['qcow2', 'raw'] as const) {
  t.test(`into ${format}: data is shared, not copied`, { skip: NO_LOOP_DEVICES }, (t) =>
    onXfs(t, async (directory) => {
      const at = (name: string) => join(directory, name)
      const expected = join(t.testdirName, 'expected')
      const base = { path: at('base'), format }
      qemuImg('create', '-q', '-f', format, at('base'), '200M')
      qemuIo(base, 'write -P 1 0 60M', 'write -P 1 90M 3k')
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', format, at('top'))
      // Mappings that cannot be shared too: a part of a cluster, a compressed one.
      qemuIo(at('top'), 'write -P 2 30M 64M', 'write -P 3 120M 5k', 'write -c -P 4 130M 64k')
      qemuIo(at('top'), 'write -z 1M 2M')
      qemuImg('convert', '-O', 'raw', at('top'), expected)
      const before = used(directory)
      await commitImage(at('top'))
      const taken = used(directory) - before
      t.ok(taken < 8 * M, `${taken} bytes more are in use, for 64 MiB of data`)
      const isExpected = (image: string, of: string) =>
        qemuImg('compare', '-f', of, '-F', 'raw', image, expected)
      t.equal(isExpected(at('base'), format), 'Images are identical.\n')
      if (format === 'qcow2') t.equal(qemuImgCheck(at('base')).status, 0)
      // What is written to the base is not in the blocks of the top.
      qemuIo(base, 'write -P 9 40M 1M')
      t.equal(isExpected(at('top'), 'qcow2'), 'Images are identical.\n')
    }),
  )
}
