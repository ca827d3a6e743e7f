/** Rebases of images on block devices, which do not grow: all of it fits, or nothing is written. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { isBackupError, rebaseImage } from '../../lib/index.ts'
import { effort } from '../support/effort.ts'
import { loopDevice, NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const K = 2 ** 10
const M = 2 ** 20

/** What an image of 16 MiB has, and what it builds on, before and after; and the smallest device for it. */
const CASES = {
  'data that differs': {
    old: ['write -P 1 0 4M', 'write -P 2 8M 64k'],
    next: ['write -P 1 0 1M', 'write -P 3 2M 1M'],
    image: ['write -P 5 512k 1M'],
    least: 2 * M,
  },
  'zeroes where the new one has data': {
    old: ['write -P 1 0 64k'],
    next: ['write -P 1 0 64k', 'write -P 4 1M 15M'],
    image: ['write -P 5 12M 1M'],
    least: M + 32 * K,
  },
  'a bitmap that gets what is copied': {
    old: ['write -P 1 0 3M'],
    next: ['write -P 1 0 64k'],
    image: ['write -P 5 3M 1M'],
    bitmap: true,
    least: 2 * M,
  },
}

for (const [name, setUp] of Object.entries(CASES)) {
  const { old, next, image, least, bitmap } = { bitmap: false, ...setUp }
  t.test(
    `${name}: rebased or refused, for any size of the device`,
    { skip: NO_LOOP_DEVICES },
    async (t) => {
      const dir = t.testdir()
      const at = (file: string) => join(dir, file)
      for (const [file, writes] of Object.entries({ old, next })) {
        qemuImg('create', '-q', '-f', 'qcow2', at(file), '16M')
        qemuIo(at(file), ...writes)
      }
      const done: boolean[] = []
      for (let i = 0; i < effort(3, 20); i++) {
        const bytes = least + i * effort(2000 * K, 300 * K)
        const device = loopDevice(t, `${i}`, bytes - (bytes % 512))
        const disk = { path: device, format: 'qcow2' } as const
        const create = ['-o', 'cluster_size=4k', '-b', at('old'), '-F', 'qcow2', device]
        qemuImg('create', '-q', '-f', 'qcow2', ...create)
        if (bitmap) qemuImg('bitmap', '--add', '-g', '4k', device, 'b')
        qemuIo(disk, ...image)
        qemuImg('convert', '-f', 'qcow2', '-O', 'raw', device, at('expected'))
        const before = readFileSync(device)
        const isDone = await rebase(device)
        done.push(isDone)
        if (!isDone) t.ok(readFileSync(device).equals(before), `${bytes}: not a byte is changed`)
        t.equal(qemuImgInfo(device)['backing-filename'], at(isDone ? 'next' : 'old'))
        t.equal(qemuImgCheck(device).status, 0, `${bytes}`)
        t.equal(
          qemuImg('compare', '-f', 'qcow2', '-F', 'raw', device, at('expected')),
          'Images are identical.\n',
        )
      }
      t.ok(done.at(-1), 'the largest is enough')
      t.notOk(done[0], 'the smallest is not')

      async function rebase(device: string): Promise<boolean> {
        try {
          await rebaseImage(device, { file: at('next'), format: 'qcow2' }, { allowPaths: [dir] })
          return true
        } catch (error) {
          if (!isBackupError(error)) throw error
          t.match(error, {
            code: 'BAD_TARGET',
            what: device,
            why: /^holds .*, of which .* are free/,
          })
          return false
        }
      }
    },
  )
}

t.test('a name is changed on a full device', { skip: NO_LOOP_DEVICES }, async (t) => {
  const dir = t.testdir()
  const at = (file: string) => join(dir, file)
  for (const file of ['old', 'moved']) {
    qemuImg('create', '-q', '-f', 'qcow2', at(file), '16M')
    qemuIo(at(file), 'write -P 1 0 1M')
  }
  const device = loopDevice(t, 'device', M)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', at('old'), '-F', 'qcow2', device)
  await rebaseImage(device, { file: at('moved'), format: 'qcow2' }, { unsafe: true })
  t.equal(qemuImgInfo(device)['backing-filename'], at('moved'))
  t.equal(qemuImgCheck(device).status, 0)
})
