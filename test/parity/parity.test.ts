import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { compareWithQemuImg, fullBackup } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { noise } from '../support/disks.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { peek64, poke } from '../support/patch.ts'

t.setTimeout(300_000)

async function all<T>(list: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of list) items.push(item)
  return items
}

t.test('our backup, a damaged one, and a raw disk show no difference', async (t) => {
  const dir = t.testdir({ raw: noise(300_000, 1) })
  const [raw, backup, damaged] = ['raw', 'backup', 'damaged'].map((name) => join(dir, name))
  await fullBackup(raw, backup)
  await fullBackup(raw, damaged)
  poke(damaged, Number(peek64(damaged, 40)), 0)
  const images = effort([damaged], [backup, damaged, raw])
  const found = await all(compareWithQemuImg(images))
  t.equal(found.length, 8 * images.length)
  t.strictSame(
    found.filter(({ same }) => !same),
    [],
  )
  if (THOROUGH) t.equal(found.find(({ command }) => command === 'check')?.status, 0)
  t.ok(found.some(({ image, status }) => image === damaged && status > 0))
})

t.test('a qemu-img that prints something else is a difference', async (t) => {
  const dir = t.testdir({ raw: noise(1000, 1) })
  const [raw, backup, fake] = ['raw', 'backup', 'fake'].map((name) => join(dir, name))
  await fullBackup(raw, backup)
  const script = '#!/bin/sh\nqemu-img "$@" | sed "s/compat/COMPAT/"\n'
  writeFileSync(fake, script)
  chmodSync(fake, 0o755)
  const found = await all(compareWithQemuImg([backup], { against: fake }))
  const different = found.filter(({ same }) => !same)
  t.strictSame(
    different.map(({ command }) => command),
    ['info --backing-chain', 'info --backing-chain --output=json'],
  )
  t.match(different[0].difference, /^--- qemu-img stdout\n\+\+\+ qcow2-backup stdout\n/)
  t.match(different[0].difference, /\n- +COMPAT: 1\.1\n\+ +compat: 1\.1\n/)

  const printed = await runCli(['parity', '--against', fake, backup])
  t.equal(printed.status, 1)
  t.match(printed.stdout, /backup: check: same, status 0\n/)
  t.match(printed.stdout, /backup: info --backing-chain: different\n--- qemu-img stdout\n/)
  t.equal(printed.stderr, 'qcow2-backup: parity: 2 of 8 comparisons with qemu-img differ\n')
  const json = await runCli(['parity', '--json', '--against', fake, backup])
  t.strictSame(JSON.parse(json.stdout), JSON.parse(JSON.stringify(found)))
})

t.test('a qemu-img that cannot be run, or is none, is an error', async (t) => {
  await t.rejects(all(compareWithQemuImg(['x'], { against: './nothing' })), {
    code: 'IO',
    message: './nothing: no such file or directory',
  })
  await t.rejects(all(compareWithQemuImg(['x'], { against: 'echo' })), {
    code: 'UNSUPPORTED',
    message: /^echo: reports no version: /,
  })
})

t.test('an image that is not there shows no difference', async (t) => {
  const found = await all(compareWithQemuImg([join(t.testdir(), 'nothing')]))
  t.strictSame(
    found.filter(({ same, status }) => !same || status !== 1),
    [],
  )
})
