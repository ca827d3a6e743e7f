/** Commits into bases on block devices, which do not grow: all of it fits, or nothing is written. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { isBackupError } from '../../lib/index.ts'
import { commitImage } from '../../lib/maintain/commit/commit.ts'
import { effort } from '../support/effort.ts'
import { loopDevice, NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const K = 2 ** 10
const M = 2 ** 20

/** What a base of 16 MiB has, and what the images above it; and the smallest device for the base. */
const CASES = {
  'data that the base lacks': {
    least: 2 * M,
    base: ['write -P 1 0 1M'],
    top: ['write -P 5 512k 3M'],
  },
  'data that the base has': {
    least: 4.5 * M,
    base: ['write -P 1 0 4M'],
    top: ['write -P 5 512k 3M'],
  },
  'data over a snapshot': {
    least: 2.5 * M,
    base: ['write -P 1 0 2M'],
    snapshot: true,
    top: ['write -P 5 512k 1M', 'write -z 4M 2M'],
  },
  'data over compressed clusters': {
    least: 2 * M,
    base: ['write -c -P 1 0 64k', 'write -P 2 1M 1M'],
    top: ['write -P 5 0 64k', 'write -P 5 9M 1M'],
  },
  'a larger disk with bitmaps': {
    least: 2 * M,
    base: ['write -P 1 0 1M'],
    bitmaps: true,
    size: '24M',
    top: ['write -P 5 20M 1M', 'write -z 0 64k'],
  },
}

async function outcomeOf(t: Test, image: string, size: number, device: string): Promise<boolean> {
  const before = readFileSync(device)
  try {
    await commitImage(image, { allowPaths: ['/dev'] })
    return true
  } catch (error) {
    if (!isBackupError(error)) throw error
    t.match(error, {
      code: 'BAD_TARGET',
      what: device,
      why: /^holds .*iB, of which .*B are free; .*iB may be needed$/,
    })
    t.ok(readFileSync(device).equals(before), `${size}: not a byte is changed`)
    return false
  }
}

for (const [name, setUp] of Object.entries(CASES)) {
  const { least, base, top, snapshot, bitmaps, size } = {
    snapshot: false,
    bitmaps: false,
    size: '16M',
    ...setUp,
  }
  t.test(
    `${name}: committed or refused, for any size of the device`,
    { skip: NO_LOOP_DEVICES },
    async (t) => {
      const dir = t.testdir()
      const at = (file: string) => join(dir, file)
      const done: boolean[] = []
      for (let i = 0; i < effort(3, 24); i++) {
        // From what the base takes alone to what is enough for all.
        const bytes = least + i * effort(2000 * K, 256 * K)
        const device = loopDevice(t, `${i}`, bytes - (bytes % 512))
        qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', device, '16M')
        qemuIo({ path: device, format: 'qcow2' }, ...base)
        if (snapshot) qemuImg('snapshot', '-c', 's', device)
        if (bitmaps) qemuImg('bitmap', '--add', '-g', '512', device, 'b')
        qemuImg('create', '-q', '-f', 'qcow2', '-b', device, '-F', 'qcow2', at('top'), size)
        if (bitmaps) qemuImg('bitmap', '--add', '-g', '512', at('top'), 'b')
        qemuIo(at('top'), ...top)
        qemuImg('convert', '-O', 'raw', at('top'), at('expected'))
        const isDone = await outcomeOf(t, at('top'), bytes, device)
        done.push(isDone)
        t.equal(qemuImgCheck(device).status, 0, `${bytes}`)
        const compared = isDone ? device : at('top')
        t.equal(
          qemuImg('compare', '-F', 'raw', compared, at('expected')),
          'Images are identical.\n',
        )
      }
      t.ok(done.at(-1), 'the largest is enough')
      if (name !== 'data that the base has') t.notOk(done[0], 'the smallest is not')
    },
  )
}

t.test('a raw device that is too small is refused', { skip: NO_LOOP_DEVICES }, async (t) => {
  const top = join(t.testdir(), 'top')
  const device = loopDevice(t, 'device', 2 * M)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', device, '-F', 'raw', top, '4M')
  qemuIo(top, 'write -P 5 0 4M')
  await t.rejects(commitImage(top, { allowPaths: ['/dev'] }), {
    code: 'BAD_TARGET',
    what: device,
    why: 'holds 2 MiB, the disk needs 4 MiB',
  })
  t.ok(readFileSync(device).equals(Buffer.alloc(2 * M)), 'not a byte is changed')
})
