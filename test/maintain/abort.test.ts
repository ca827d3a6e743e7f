/** A signal that comes during an edit: the image is as it was, or the edit is complete. */
import { copyFileSync, existsSync, readdirSync, unlinkSync, watch, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { diskOf } from '../../lib/image/steps.ts'
import * as library from '../../lib/index.ts'
import {
  type BitmapOperation,
  backingChainInfo,
  createSnapshot,
  listBitmaps,
  type Progress,
  readBitmap,
  readBitmapChain,
} from '../../lib/index.ts'
import { editBitmap } from '../../lib/maintain/edit-bitmap.ts'
import { runCli } from '../support/cli.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'
import { counting } from '../support/stopping.ts'

t.setTimeout(300_000)

const reason = new Error('enough')
const ABORTED = { code: 'ABORTED', cause: reason }

/** A signal that is aborted at the n-th call of a function. */
function abortingAt(n: number): { signal: AbortSignal; count: () => void } {
  const controller = new AbortController()
  let calls = 0
  const count = () => {
    if (++calls === n) controller.abort(reason)
  }
  return { signal: controller.signal, count }
}

/** An image of 64 MiB with a bitmap `a` that has some bits set, and an empty one, `b`. */
function makeImage(image: string): void {
  qemuImg('create', '-q', '-f', 'qcow2', image, '64M')
  qemuImg('bitmap', '--add', '-g', '4K', image, 'a')
  qemuIo(image, ...Array.from({ length: 16 }, (_, i) => `write -q ${i * 4096 * 37} 4k`))
  qemuImg('bitmap', '--add', '-g', '64K', image, 'b')
}

/** Gives an image a bitmap of more runs than fit a batch. */
async function makeManyRuns(image: string, dir: string): Promise<void> {
  const other = join(dir, 'other')
  const pair = Buffer.alloc(1024)
  pair.fill(1, 0, 512)
  writeFileSync(other, Buffer.alloc(2 ** 24, pair))
  await library.diffToBitmap(image, other, 'runs', { granularity: 512, baselineFormat: 'raw' })
  unlinkSync(other)
}

t.test('an edit that is aborted at any write is not done at all, or is complete', async (t) => {
  const dir = t.testdir()
  const [image, path, done] = ['image', 'x', 'done'].map((name) => join(dir, name))
  makeImage(image)
  const operations: BitmapOperation[] = [{ kind: 'merge', source: 'a' }]
  copyFileSync(image, done)
  await editBitmap(done, 'b', operations)
  const [before, after] = [await listBitmaps(image), await listBitmaps(done)]
  t.notSame(before, after)
  const outcomes = new Set<string>()
  for (let n = 1; ; n++) {
    copyFileSync(image, path)
    const { signal, count } = abortingAt(n)
    const outcome = await editBitmap(path, 'b', operations, {
      signal,
      disk: ({ file }) => counting(diskOf(file.handle), count),
    }).then(
      () => 'done',
      (error) => {
        // Through the door the cause is the reason; here too.
        t.match(error, ABORTED)
        return 'aborted'
      },
    )
    outcomes.add(outcome)
    t.strictSame(
      await listBitmaps(path),
      outcome === 'done' ? after : before,
      `at ${n}: ${outcome}`,
    )
    t.equal(qemuImgCheck(path).report.corruptions ?? 0, 0)
    if (!signal.aborted) break
  }
  t.strictSame(outcomes, new Set(['aborted', 'done']))
})

t.test('a signal reaches into whatever takes long', async (t) => {
  const dir = t.testdir()
  const image = join(dir, 'image')
  makeImage(image)
  const phases = new Set<string>()
  for (const phase of ['check', 'bitmaps']) {
    const controller = new AbortController()
    const onProgress = (progress: Progress) => {
      phases.add(progress.phase)
      if (progress.phase === phase) controller.abort(reason)
    }
    await library
      .editBitmap(image, 'b', [{ kind: 'merge', source: 'a' }, { kind: 'clear' }], {
        signal: controller.signal,
        onProgress,
      })
      .catch((error) => t.match(error, ABORTED))
    qemuImgCheck(image)
  }
  t.ok(phases.has('bitmaps'), 'the last call of onProgress always comes')

  const { signal, count } = abortingAt(1)
  await makeManyRuns(image, dir)
  await t.rejects(readBitmap(image, 'runs', count, { signal }), ABORTED)

  // Each image of a chain is another chance to stop.
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'image', join(dir, 'top'))
  const looks: ((signal: AbortSignal) => Promise<unknown>)[] = [
    (signal: AbortSignal) => readBitmapChain(join(dir, 'top'), { signal }),
    (signal: AbortSignal) => backingChainInfo(join(dir, 'top'), { signal }),
    (signal: AbortSignal) => createSnapshot(join(dir, 'top'), join(dir, 'over'), { signal }),
    (signal: AbortSignal) => listBitmaps(image, { signal }),
    (signal: AbortSignal) => library.imageInfo(image, { signal }),
  ]
  for (const look of looks) {
    const controller = new AbortController()
    const looking = look(controller.signal)
    // After the door, during the work.
    controller.abort(reason)
    await t.rejects(looking, ABORTED)
  }
  t.strictSame(readdirSync(dir).sort(), ['image', 'top'])
})

for (const args of [
  ['snapshot', 'base', 'made'],
  ['full', 'base', 'made'],
  ['diff', 'base', 'base.raw', '--output', 'made'],
]) {
  t.test(`${args[0]}: a signal behind publishing leaves status 0`, async (t) => {
    const cwd = t.testdir()
    makeImage(join(cwd, 'base'))
    qemuImg('convert', '-O', 'raw', join(cwd, 'base'), join(cwd, 'base.raw'))
    const watcher = watch(cwd)
    t.teardown(() => watcher.close())
    const result = await runCli(args, {
      cwd,
      onStart(child) {
        let sent = false
        watcher.on('change', () => {
          if (sent || !existsSync(join(cwd, 'made'))) return
          sent = true
          child.kill('SIGTERM')
        })
      },
    })
    t.match(result, { status: 0, stderr: '' })
    t.match(result.stdout, /\w/)
    t.ok(existsSync(join(cwd, 'made')))
  })
}

t.test('the last progress of every call is at the end, in one shape', async (t) => {
  const dir = t.testdir()
  const image = join(dir, 'image')
  makeImage(image)
  const told: Progress[] = []
  const onProgress = (progress: Progress) => void told.push(progress)
  const ends: [string, number, () => Promise<unknown>][] = [
    ['bitmaps', 2 ** 26, () => library.editBitmap(image, 'b', [{ kind: 'clear' }], { onProgress })],
    ['bitmaps', 2 * 2 ** 26, () => library.listBitmaps(image, { onProgress })],
    ['bitmaps', 2 ** 26, () => library.readBitmap(image, 'a', () => {}, { onProgress })],
    ['chain', 1, () => library.readBitmapChain(image, { onProgress })],
    ['copy', 2 ** 26, () => library.createSnapshot(image, join(dir, 'over'), { onProgress })],
    [
      'parity',
      8,
      async () => {
        for await (const _ of library.compareWithQemuImg([image], { onProgress }));
      },
    ],
    [
      'map',
      2 ** 26,
      async () => {
        const source = await library.openSource(image)
        for await (const _ of source.extents({ onProgress, detectZeroes: true }));
        await source.close()
      },
    ],
  ]
  for (const [phase, size, call] of ends) {
    told.length = 0
    await call()
    const last = told.at(-1)
    t.match(last, { phase, position: size, size, dataBytes: 0, elapsedSeconds: Number })
  }
})

t.test(
  'what onProgress throws ends the reading of bitmaps, chains and the making of a snapshot',
  async (t) => {
    const dir = t.testdir()
    const image = join(dir, 'image')
    makeImage(image)
    const mine = new Error('mine')
    const onProgress = () => {
      throw mine
    }
    const calls: (() => Promise<unknown>)[] = [
      () => library.listBitmaps(image, { onProgress }),
      () => library.readBitmap(image, 'a', () => {}, { onProgress }),
      () => library.readBitmapChain(image, { onProgress }),
      () => library.createSnapshot(image, join(dir, 'over'), { onProgress }),
    ]
    for (const call of calls) {
      await t.rejects(call(), { code: 'CALLBACK', cause: mine })
    }
    t.strictSame(readdirSync(dir), ['image'])
  },
)

t.test(
  'bitmap, chain and snapshot print progress as lines of JSON that end at the end',
  async (t) => {
    const cwd = t.testdir()
    makeImage(join(cwd, 'image'))
    const size = 2 ** 26
    for (const [args, phase, end] of [
      [['bitmap', '--merge', 'a', 'image', 'b'], 'bitmaps', size],
      [['bitmap', 'list', 'image'], 'bitmaps', 2 * size],
      [['bitmap', 'show', 'image', 'a'], 'bitmaps', size],
      [['chain', 'image'], 'chain', 1],
      [['snapshot', 'image', 'over'], 'copy', size],
    ] as const) {
      const { status, stderr } = await runCli([...args, '--progress', 'json'], { cwd })
      const lines = stderr.trim().split('\n')
      t.equal(status, 0, stderr)
      t.match(JSON.parse(lines.at(-1)!), { phase, position: end, size: end }, args.join(' '))
      const none = ['--no-progress', ...(args[0] === 'snapshot' ? ['--force'] : [])]
      t.equal((await runCli([...args, ...none], { cwd })).stderr, '', args.join(' '))
    }
    const wrong = await runCli(['bitmap', 'list', 'image', '--progress', 'bar'], { cwd })
    t.equal(wrong.status, 1)
    t.equal(wrong.stderr, "qemu-img: --progress: 'bar' is not one of json\n")
  },
)
