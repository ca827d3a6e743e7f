import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg, qemuImgSame, qemuIo, run } from '../../support/qemu.ts'

/** An image with a snapshot `then`, the same image when it has gone back to that, and a plain copy. */
function images(t: Test) {
  const image = join(t.testdir(), 'disk.qcow2')
  const [back, now] = [`${image}.back`, `${image}.now`]
  qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
  qemuIo(image, 'write -P 1 0 1M', 'write -z 2M 64k')
  qemuImg('snapshot', '-c', 'then', image)
  qemuIo(image, 'write -P 2 512k 1M')
  copyFileSync(image, back)
  qemuImg('snapshot', '-a', 'then', back)
  copyFileSync(image, now)
  return { image, back, now }
}

t.test('full, restore and extents read a disk as it was at a snapshot', async (t) => {
  const { image, back } = images(t)
  const [backup, raw] = [`${image}.backup`, `${image}.raw`]
  const then = { path: back, format: 'qcow2' }
  t.equal((await runCli(['full', '--snapshot', 'then', image, backup])).status, 0)
  t.ok(qemuImgSame({ path: backup, format: 'qcow2' }, then))
  t.equal((await runCli(['restore', '--snapshot', '1', image, raw])).status, 0)
  t.ok(qemuImgSame({ path: raw, format: 'raw' }, then))
  const extents = await runCli(['extents', '--snapshot', 'then', image])
  t.equal(extents.stdout, (await runCli(['extents', back])).stdout)
})

t.test('map prints what qemu-img prints of an image that went back to the snapshot', async (t) => {
  const { image, back } = images(t)
  for (const output of ['human', 'json']) {
    const { status, stdout } = await runCli([
      ...['map', '--qemu-version', '7.2', `--output=${output}`],
      ...['--snapshot', 'then', image],
    ])
    t.equal(status, 0)
    const theirs = run('qemu-img', ['map', `--output=${output}`, back])
    t.equal(stdout.replaceAll(image, back), theirs.stdout)
  }
})

t.test('compare takes a snapshot of either image', async (t) => {
  const { image, back, now } = images(t)
  const compare = async (...args: string[]) => (await runCli(['compare', ...args])).status
  t.equal(await compare('--snapshot', 'then', image, back), 0)
  t.equal(await compare('--snapshot', 'then', image, now), 1)
  t.equal(await compare('--b-snapshot', '1', back, image), 0)
  t.equal(await compare('--snapshot=then', '--b-snapshot=then', image, now), 0)
})

t.test('a snapshot that is not there is one line with those that are', async (t) => {
  const { image, back } = images(t)
  const why = "has no snapshot 'x'; it has 'then' (id '1')"
  const full = await runCli(['full', '--snapshot', 'x', image, `${image}.backup`])
  t.match(full, { status: 2, stderr: `qcow2-backup: ${image}: ${why}\n` })
  const map = await runCli(['map', '--snapshot', 'x', image])
  t.match(map, { status: 1, stderr: `qemu-img: Could not open '${image}': ${why}\n` })
  const compare = await runCli(['compare', '--snapshot', 'x', image, back])
  t.match(compare, { status: 2, stderr: `qemu-img: Could not open '${image}': ${why}\n` })
  const bitmap = ['--bitmap', 'b', '--backing', back]
  const incremental = await runCli([
    'incremental',
    ...bitmap,
    '--snapshot',
    'x',
    image,
    `${image}.b`,
  ])
  t.match(incremental, { status: 2, stderr: 'qcow2-backup: --snapshot: unknown option\n' })
})

t.test('what abbreviates an option of qemu-img does not mean a snapshot', async (t) => {
  const { image, back } = images(t)
  const { status, stdout } = await runCli(['map', '--qemu-version', '7.2', '--s', '3M', image])
  t.equal(status, 0)
  const theirs = run('qemu-img', ['map', '--s', '3M', back])
  t.equal(stdout.replaceAll(image, back), theirs.stdout)
})
