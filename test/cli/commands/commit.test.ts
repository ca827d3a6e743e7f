import { copyFileSync, existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { editBitmap, listBitmaps } from '../../../lib/index.ts'
import { randomNumbers } from '../../support/changes.ts'
import { CLI, runCli } from '../../support/cli.ts'
import { makeRaw, noise } from '../../support/disks.ts'
import { effort } from '../../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../../support/qemu.ts'
import { startQemuNbd } from '../../support/qemu-nbd.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20

/** A base and an overlay over it with a bitmap in both. */
function twoImages(t: Test) {
  const cwd = t.testdir()
  const at = (name: string) => join(cwd, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '64M')
  qemuImg('bitmap', '--add', at('base'), 'b')
  qemuIo(at('base'), 'write -P 1 0 1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
  qemuImg('bitmap', '--add', at('top'), 'b')
  qemuImg('bitmap', '--add', at('top'), 'c')
  qemuIo(at('top'), 'write -P 2 4M 100k', 'write -z 0 64k')
  return { cwd, at }
}

t.test('told to people, and as JSON; --delete removes the top', async (t) => {
  const { cwd, at } = twoImages(t)
  const told = await runCli(['commit', 'top'], { cwd })
  t.strictSame(
    [told.status, told.stdout, told.stderr],
    [
      0,
      'base: complete\n  disk 64 MiB; committed: 128 KiB of data and 64 KiB of zeroes\n' +
        '  bitmaps merged: b\n  bitmaps added: c\n',
      '',
    ],
  )
  t.equal(qemuImg('compare', at('base'), at('top')), 'Images are identical.\n')
  t.match(await listBitmaps(at('base')), [
    { name: 'b', dirtyBytes: MIB + 2 * 65536 },
    { name: 'c', dirtyBytes: 3 * 65536 },
  ])
  const json = await runCli(['commit', 'top', '--json', '--delete', '--base', 'base'], { cwd })
  t.match(JSON.parse(json.stdout), {
    top: 'top',
    base: 'base',
    virtualSize: 64 * MIB,
    dataBytes: 131072,
    zeroBytes: 65536,
    merged: ['b', 'c'],
    created: [],
    deleted: ['top'],
    notes: [],
  })
  t.notOk(existsSync(at('top')))
  t.equal(qemuImgCheck(at('base')).status, 0)
})

t.test('a commit that is refused changes nothing', async (t) => {
  const { cwd, at } = twoImages(t)
  qemuImg('create', '-q', '-f', 'qcow2', at('other'), '64M')
  const before = readFileSync(at('base'))
  const refused = async (args: string[], status: number, words: RegExp) => {
    const ended = await runCli(['commit', ...args], { cwd })
    t.equal(ended.status, status, args.join(' '))
    t.match(ended.stderr, words)
    t.equal(ended.stdout, '')
    t.ok(readFileSync(at('base')).equals(before), `${args.join(' ')}: the base is as it was`)
  }
  await refused(['base'], 2, /^qcow2-backup: base: has no backing file to commit to\n$/)
  await refused(['top', '--base', 'other'], 2, /^qcow2-backup: --base: other is not in the/)
  await refused(['top', '--base', 'top'], 2, /^qcow2-backup: --base: top is the image to commit/)
  await refused(['top', '--base', 'gone'], 1, /^qcow2-backup: gone: no such file/)
  await refused(['gone'], 1, /^qcow2-backup: gone: no such file/)
  const { stop } = await startQemuNbd(t, at('base'), { writable: false })
  await refused(['top'], 1, /^qcow2-backup: .*base: is in use by another process/)
  await stop()
  const top = await startQemuNbd(t, at('top'), { writable: true })
  await refused(['top'], 1, /^qcow2-backup: .*top: is open for writing in another process/)
  await top.stop()
})

t.test('a bitmap that is not valid is told, and not merged', async (t) => {
  const { cwd, at } = twoImages(t)
  qemuImg('bitmap', '--disable', at('base'), 'b')
  const before = await listBitmaps(at('base'))
  const { status, stdout } = await runCli(['commit', 'top', '--json'], { cwd })
  t.equal(status, 0)
  const result = JSON.parse(stdout)
  t.match(result, { merged: [], created: ['c'] })
  t.match(result.notes[0], /base: bitmap 'b' is disabled/)
  t.strictSame((await listBitmaps(at('base')))[0], before[0])
})

t.test('into a raw image: the bitmaps end, and that is told', async (t) => {
  const cwd = t.testdir()
  const at = (name: string) => join(cwd, name)
  makeRaw(at('base'), 8 * MIB, [{ at: 0, bytes: noise(MIB) }])
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', at('top'), '10M')
  qemuImg('bitmap', '--add', at('top'), 'b')
  qemuIo(at('top'), 'write -P 2 9M 1M', 'write -z 100k 300k')
  const { status, stdout } = await runCli(['commit', 'top'], { cwd })
  t.equal(status, 0)
  t.match(stdout, /note: base: is raw and holds no bitmaps: bitmap 'b' ends here/)
  t.equal(statSync(at('base')).size, 10 * MIB)
  t.equal(
    qemuImg('compare', '-f', 'raw', '-F', 'qcow2', at('base'), at('top')),
    'Images are identical.\n',
  )
})

/** A base of many clusters, and an overlay over half of them. */
function largeImages(t: Test) {
  const cwd = t.testdir()
  const at = (name: string) => join(cwd, name)
  const random = randomNumbers(9)
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', at('base'), '256M')
  qemuImg('bitmap', '--add', at('base'), 'b')
  const some = (pattern: number) =>
    Array.from({ length: 400 }, () => `write -P ${pattern} ${random(4000) * 65536} 200k`)
  qemuIo(at('base'), ...some(1))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
  qemuImg('bitmap', '--add', at('top'), 'b')
  qemuIo(at('top'), ...some(2), 'write -z 100M 50M')
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', at('top'), at('expected'))
  return { cwd, at }
}

function requireSound(t: Test, at: (name: string) => string, image: string, what: string) {
  const { status } = qemuImgCheck(at('base'))
  t.ok(status === 0 || status === 3, `${what}: check ends with ${status}`)
  const same = qemuImg('compare', '-f', 'qcow2', '-F', 'raw', at(image), at('expected'))
  t.equal(same, 'Images are identical.\n', what)
}

/** A part of a commit, as its progress tells it. */
type Part = 'bitmaps of the base' | 'data' | 'new bitmaps'

function partOf({ phase, position }: { phase: string; position: number }): Part {
  if (phase === 'copy') return 'data'
  return position === 0 ? 'bitmaps of the base' : 'new bitmaps'
}

/** Sends a signal when the program tells for the n-th time that it is in a part of a commit. */
function signalledIn(cwd: string, part: Part, n: number, signal: NodeJS.Signals, rate: string) {
  let lines = 0
  let rest = ''
  return runCli(['commit', 'top', '--progress', 'json', '--rate-limit', rate], {
    cwd,
    onStderr(text, child) {
      const parts = (rest + text).split('\n')
      rest = parts.pop() ?? ''
      for (const line of parts.filter((one) => one.startsWith('{'))) {
        if (partOf(JSON.parse(line)) === part && ++lines === n) child.kill(signal)
      }
    },
  })
}

/** It may be done by the time that a signal comes: then it is tried again. */
const MAX_TRIES = 20

t.test('a commit that is killed in any of its parts can be run again', async (t) => {
  const { cwd, at } = largeImages(t)
  for (let i = 0; i < 8; i++) await editBitmap(at('top'), `new ${i}`, [{ kind: 'add' }])
  copyFileSync(at('base'), at('fresh'))
  const kills: [Part, number][] = [
    ['bitmaps of the base', 1],
    ...effort([2], [1, 2, 4]).map((n): [Part, number] => ['data', n]),
    ['new bitmaps', 1],
  ]
  for (const [part, n] of kills) {
    const what = `killed in its ${part}, ${n}`
    let killed = false
    for (let i = 0; i < MAX_TRIES && !killed; i++) {
      const { signal, status, stderr } = await signalledIn(cwd, part, n, 'SIGKILL', '40M')
      killed = signal === 'SIGKILL'
      if (killed) continue
      t.equal(status, 0, stderr)
      copyFileSync(at('fresh'), at('base'))
    }
    t.ok(killed, what)
    requireSound(t, at, 'top', what)
    const old = (await listBitmaps(at('base'))).find(({ name }) => name === 'b')
    t.match(old, { inconsistent: false, recording: true }, what)
  }
  const { status, stderr } = await runCli(['commit', 'top'], { cwd })
  t.equal(status, 0, stderr)
  requireSound(t, at, 'base', 'run again')
  t.equal((await listBitmaps(at('base'))).length, 9)
  t.equal(run('qemu-img', ['check', '-q', '-r', 'leaks', at('base')]).status, 0)
})

t.test('SIGINT: one line, status 130, and it can be run again', async (t) => {
  const { cwd, at } = largeImages(t)
  const { status, stderr } = await signalledIn(cwd, 'data', 1, 'SIGINT', '10M')
  t.equal(status, 130, stderr)
  t.match(stderr, /^qcow2-backup: .*base: interrupted\n$/m)
  requireSound(t, at, 'top', 'interrupted')
  t.equal((await runCli(['commit', 'top'], { cwd })).status, 0)
  requireSound(t, at, 'base', 'run again')
})

t.test('a limit of file sizes: one line and no signal, the base is sound', async (t) => {
  const { cwd, at } = largeImages(t)
  // Tables are written by Node, whose threads do not block SIGXFSZ, data by the addon, whose do.
  for (const more of effort([0, 2000], [0, 100, 2000, 20_000])) {
    const most = Math.ceil(statSync(at('base')).size / 512) + more
    const script = `ulimit -f ${most}; cd '${cwd}' && exec "$@"`
    const command = ['sh', process.execPath, CLI, 'commit', 'top']
    const limited = run('sh', ['-c', script, ...command])
    t.equal(limited.status, 1, `${more}: ${limited.stderr}`)
    t.match(limited.stderr, /^qcow2-backup: .*base: .*file too large.*\n$/)
    requireSound(t, at, 'top', `${more} sectors of room`)
  }
  t.equal((await runCli(['commit', 'top'], { cwd })).status, 0)
  requireSound(t, at, 'base', 'run again')
})
