/** A rebase that ends between any two writes, or is killed: the image is sound and shows the same. */
import { spawn } from 'node:child_process'
import { copyFileSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { compareImages, listBitmaps } from '../../lib/index.ts'
import type { ChangeDisk } from '../../lib/maintain/changes/batch.ts'
import { type NewBacking, rebaseImage } from '../../lib/maintain/rebase/rebase.ts'
import { CLI } from '../support/cli.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo } from '../support/qemu.ts'
import { counted, Stopped, stopsAt, stopsOf } from '../support/stopping.ts'

t.setTimeout(1_800_000)

interface SetUp {
  options: string
  topSize: string
  backing: NewBacking
}

/** `top` over `mid` over `base`, with a bitmap that all have and one of the top alone; and `other`. */
function prepare(dir: string, { options, topSize }: SetUp): void {
  const at = (file: string) => join(dir, file)
  const create = (name: string, size: string, ...over: string[]) =>
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...over, at(name), size)
  const v3 = !options.includes('compat=0.10')
  const bitmap = (name: string, image: string) => {
    if (v3) qemuImg('bitmap', '--add', at(image), name)
  }
  create('base', '4M')
  bitmap('all', 'base')
  qemuIo(at('base'), 'write -P 1 0 2M', 'write -P 2 3M 500k')
  create('mid', '5M', '-b', 'base', '-F', 'qcow2')
  bitmap('all', 'mid')
  qemuIo(at('mid'), 'write -P 3 500k 700k', 'write -z 1500k 300k', 'write -P 4 4M 300k')
  create('top', topSize, '-b', 'mid', '-F', 'qcow2')
  bitmap('all', 'top')
  bitmap('own', 'top')
  qemuIo(at('top'), 'write -P 5 700k 100k', 'write -z 2M 64k', 'write -P 6 128k 3k')
  create('other', '7M')
  qemuIo(at('other'), 'write -P 1 0 1M', 'write -P 7 2500k 1M', 'write -P 8 4200k 2M')
}

async function requireSame(t: Test, at: (name: string) => string, what: string, byQemu: boolean) {
  const { identical } = await compareImages([at('top'), at('expected')], {
    formats: ['qcow2', 'raw'],
  })
  t.ok(identical, what)
  if (!byQemu) return
  const args = ['-f', 'qcow2', '-F', 'raw', at('top'), at('expected')]
  t.equal(qemuImg('compare', ...args), 'Images are identical.\n', what)
  const { status, stderr } = qemuImgCheck(at('top'))
  t.ok(status === 0 || status === 3, `${what}: qemu-img check ends with ${status} ${stderr}`)
}

async function campaign(t: Test, setUp: SetUp, turn: number): Promise<void> {
  const dir = t.testdir({ part: {} })
  const at = (name: string) => join(dir, 'part', name)
  prepare(dir, setUp)
  const files = readdirSync(dir).filter((name) => name !== 'part')
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', join(dir, 'top'), at('expected'))
  const restart = () => {
    for (const file of files) copyFileSync(join(dir, file), at(file))
  }
  restart()
  const before = (await listBitmaps(at('top'))).map(({ name }) => name)
  const steps = [0]
  const { dataBytes, zeroBytes } = await rebaseImage(at('top'), setUp.backing, {
    disk: (disk) =>
      counted(disk, (isSync) => {
        steps[steps.length - 1]++
        if (isSync) steps.push(0)
      }),
  })
  t.ok(dataBytes > 0 && zeroBytes > 0, 'both are copied')
  t.ok(steps.length >= 4, `${steps.length} steps`)
  for (const [i, n] of stopsOf(steps, turn).entries()) {
    restart()
    const disk = (one: ChangeDisk) => counted(one, stopsAt(n))
    const ended = await rebaseImage(at('top'), setUp.backing, { disk }).catch((error) => error)
    const byQemu = i % effort(12, 2) === 0
    // The last call is the sync of the header: its bytes may be there.
    if (ended instanceof Stopped) await requireSame(t, at, `stopped at ${n}`, byQemu)
    else if (ended instanceof Error) throw ended
    for (const file of files) {
      if (file !== 'top') t.ok(readFileSync(at(file)).equals(readFileSync(join(dir, file))), file)
    }
    t.strictSame(
      (await listBitmaps(at('top'))).map(({ name }) => name),
      before,
      'bitmaps',
    )
    await rebaseImage(at('top'), setUp.backing)
    await requireSame(t, at, `stopped at ${n}, done again`, byQemu)
    t.equal(qemuImgInfo(at('top'))['backing-filename'], setUp.backing.file || undefined)
  }
}

t.test('a rebase onto another image survives every stop', (t) => {
  const backing = { file: 'other', format: 'qcow2' }
  return campaign(t, { options: 'cluster_size=64k', topSize: '5M', backing }, 0)
})

t.test('onto an image of its own chain, with small clusters, of a larger disk', (t) => {
  const backing = { file: 'base', format: 'qcow2' }
  return campaign(t, { options: 'cluster_size=4k', topSize: '6M', backing }, 1)
})

t.test('onto nothing, with extended L2 entries', (t) => {
  const backing = { file: '' }
  const options = 'cluster_size=64k,extended_l2=on'
  return campaign(t, { options, topSize: '5M', backing }, 2)
})

t.test('onto another image, of version 2, which has no flag for zeroes', (t) => {
  const backing = { file: 'other', format: 'qcow2' }
  return campaign(t, { options: 'compat=0.10,cluster_size=4k', topSize: '5M', backing }, 0)
})

t.test('a rebase that is killed leaves the image as it was, and can be run again', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', at('base'), '512M')
  qemuIo(at('base'), 'write -P 1 0 200M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
  qemuIo(at('top'), 'write -P 2 1M 100k')
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', at('top'), at('expected'))
  copyFileSync(at('top'), at('fresh'))
  const original = { ...qemuImgInfo(at('top')) }['backing-filename']
  let killed = 0
  for (let n = 1; n <= effort(1, 8); n++) {
    copyFileSync(at('fresh'), at('top'))
    const child = spawn(process.execPath, [CLI, 'rebase', '-p', '-b', '', at('top')])
    let shown = 0
    child.stdout.on('data', (text) => {
      shown += String(text).split('\r').length - 1
      if (shown > n * 2) child.kill('SIGKILL')
    })
    const signal = await new Promise((resolve) => child.on('close', (_, how) => resolve(how)))
    const backing = qemuImgInfo(at('top'))['backing-filename']
    if (signal === 'SIGKILL') killed++
    t.ok(backing === original || backing === undefined)
    await requireSame(t, at, `killed at ${n}`, true)
  }
  t.ok(killed > 0, `${killed} were killed`)
  await rebaseImage(at('top'), undefined)
  await requireSame(t, at, 'done again', true)
})
