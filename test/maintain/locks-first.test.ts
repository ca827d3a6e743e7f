/** A guest that writes to an image and closes it right before an edit locks it: nothing is lost. */
import { join } from 'node:path'
import t from 'tap'
import { checkImage, commitImage, editBitmap } from '../../lib/index.ts'
import { native } from '../../lib/native.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const WRITE = 'write -P 7 1M 2M'

/** Calls `before` right before the n-th lock that is taken while `edit` runs; false if there are fewer. */
async function beforeLock(n: number, before: () => void, edit: () => Promise<unknown>) {
  const addon = native()
  const { lockFile } = addon
  let calls = 0
  addon.lockFile = (...args) => {
    if (++calls === n) before()
    return lockFile(...args)
  }
  try {
    await edit()
  } finally {
    addon.lockFile = lockFile
  }
  return calls >= n
}

interface Case {
  what: string
  /** Makes an image that a guest writes to, and returns the edit. */
  prepare: (at: (name: string) => string) => () => Promise<unknown>
  /** What the guest writes to, and where that must be found. */
  guest: string
  result: string
}

const CASES: Case[] = [
  {
    what: 'commit of the top',
    guest: 'top',
    result: 'base',
    prepare(at) {
      qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M')
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
      qemuImg('bitmap', '--add', at('top'), 'b')
      return () => commitImage(at('top'))
    },
  },
  {
    what: 'commit into a base that is written to',
    guest: 'base',
    result: 'base',
    prepare(at) {
      qemuImg('create', '-q', '-f', 'qcow2', at('base'), '4M')
      qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
      qemuIo(at('top'), 'write -P 1 0 64k')
      return () => commitImage(at('top'))
    },
  },
  {
    what: 'bitmap',
    guest: 'image',
    result: 'image',
    prepare(at) {
      qemuImg('create', '-q', '-f', 'qcow2', at('image'), '4M')
      return () => editBitmap(at('image'), 'b', [{ kind: 'add' }])
    },
  },
  {
    what: 'repair',
    guest: 'image',
    result: 'image',
    prepare(at) {
      qemuImg('create', '-q', '-f', 'qcow2', at('image'), '4M')
      return () => checkImage(at('image'), { repair: 'all' })
    },
  },
]

for (const { what, prepare, guest, result } of CASES) {
  t.test(`${what}: what was written right before a lock is there`, async (t) => {
    let written = 0
    for (let n = 1; ; n++) {
      const dir = t.testdir()
      const at = (name: string) => join(dir, name)
      const edit = prepare(at)
      let wrote = false
      const before = () => {
        // Refused if the image is locked by then.
        wrote = run('qemu-io', ['-c', WRITE, at(guest)]).status === 0
      }
      if (!(await beforeLock(n, before, edit))) break
      if (!wrote) continue
      written++
      t.match(qemuIo(at(result), 'read -P 7 1M 2M'), /^read 2097152/, `lock ${n}`)
      t.match(qemuImgCheck(at(result)), { status: 0 }, `lock ${n}: check`)
    }
    t.ok(written > 0, `${written} writes came before a lock`)
  })
}
