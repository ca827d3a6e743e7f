import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup, restore } from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { loopDevice, NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg } from '../support/qemu.ts'

t.setTimeout(180_000)

const MIB = 2 ** 20
const SKIP = { skip: NO_LOOP_DEVICES }

/** A backup with a manifest, and an increment over it without one. */
async function setUp(test: Test) {
  const at = (name: string) => join(test.testdirName, name)
  test.testdir()
  makeRaw(at('disk'), 4 * MIB, [{ at: MIB, bytes: noise(MIB) }])
  await fullBackup(at('disk'), at('full.qcow2'), { manifest: true })
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'full.qcow2', '-F', 'qcow2', at('top.qcow2'))
  return at
}

/** Changes a byte of what the guest sees. */
function damage(image: string): void {
  const bytes = readFileSync(image)
  const data = bytes.indexOf(noise(MIB).subarray(0, 512))
  if (data < 0) throw new Error(`${image} does not hold the noise`)
  bytes[data] ^= 1
  writeFileSync(image, bytes)
}

t.test('a single image is compared with its manifest while it is read', async (t) => {
  const at = await setUp(t)
  await restore(at('full.qcow2'), at('out'))
  t.ok(readFileSync(at('out')).equals(readFileSync(at('disk'))))
  damage(at('full.qcow2'))
  for (const outputFormat of ['raw', 'qcow2'] as const) {
    const error = {
      code: 'DIFFERENT',
      message: /full.qcow2: does not match the data that was read: /,
    }
    await t.rejects(restore(at('full.qcow2'), at('bad'), { outputFormat }), error)
    t.notOk(existsSync(at('bad')))
  }
  const old = readFileSync(at('out'))
  await t.rejects(restore(at('full.qcow2'), at('out'), { force: true }), { code: 'DIFFERENT' })
  t.ok(readFileSync(at('out')).equals(old), 'what stood there stays')
  await restore(at('full.qcow2'), at('bad'), { verify: false })
  t.ok(existsSync(at('bad')))
})

t.test('a target that is written in place: what becomes of it is said', SKIP, async (t) => {
  const at = await setUp(t)
  const device = loopDevice(t, 'target', 4 * MIB)
  const old = noise(4 * MIB, 9)
  writeFileSync(device, old, { flag: 'r+' })
  damage(at('full.qcow2'))
  const restored = restore(at('full.qcow2'), device, { force: true })
  await t.rejects(restored, {
    code: 'DIFFERENT',
    what: at('full.qcow2'),
    why: new RegExp(
      `^does not match the data that was read: .*; ${device} was overwritten with it$`,
    ),
  })

  // What its metadata tell is known before.
  writeFileSync(device, old, { flag: 'r+' })
  renameSync(at('full.qcow2'), at('other.qcow2'))
  renameSync(at('full.qcow2.manifest.json'), at('other.qcow2.manifest.json'))
  await t.rejects(restore(at('other.qcow2'), device, { force: true }), {
    code: 'DIFFERENT',
    why: "its manifest is of an image named 'full.qcow2'",
  })
  t.ok(readFileSync(device).equals(old), 'nothing was written')

  // And with `verify` the content is, too.
  renameSync(at('other.qcow2'), at('full.qcow2'))
  renameSync(at('other.qcow2.manifest.json'), at('full.qcow2.manifest.json'))
  const verified = restore(at('full.qcow2'), device, { force: true, verify: true })
  await t.rejects(verified, { code: 'DIFFERENT', what: at('full.qcow2') })
  t.ok(readFileSync(device).equals(old), 'nothing was written')
})

t.test('a chain is compared with its manifests if that is wanted', async (t) => {
  const at = await setUp(t)
  const { verified, notes } = await restore(at('top.qcow2'), at('out'), { verify: true })
  t.equal(verified, true)
  t.match(notes, [/top.qcow2: has no manifest; its structure is sound/])
  damage(at('full.qcow2'))
  const error = { code: 'DIFFERENT', what: /full.qcow2$/ }
  await t.rejects(restore(at('top.qcow2'), at('bad'), { verify: true }), error)
  t.notOk(existsSync(at('bad')))
  await restore(at('top.qcow2'), at('bad'))
})

t.test('a manifest of another image is noticed before a byte is read', async (t) => {
  const at = await setUp(t)
  renameSync(at('full.qcow2'), at('other.qcow2'))
  renameSync(at('full.qcow2.manifest.json'), at('other.qcow2.manifest.json'))
  await t.rejects(restore(at('other.qcow2'), at('out')), {
    code: 'DIFFERENT',
    why: "its manifest is of an image named 'full.qcow2'",
  })
})

t.test('what the name of a target says is not what it is', async (t) => {
  const at = await setUp(t)
  const { notes } = await restore(at('full.qcow2'), at('out.qcow2'))
  t.match(notes, [/out.qcow2: is a raw disk despite its name; /])
  writeFileSync(at('empty'), '')
  const empty = await fullBackup(at('empty'), at('e.qcow2'), { format: 'raw' })
  t.match(empty.notes, [/empty: is empty, a disk of 0 bytes/])
})
