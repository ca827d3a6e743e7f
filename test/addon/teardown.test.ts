/** However a program ends, the addon's threads end with it, without a crash and without a hang. */

import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { effort, someOf } from '../support/effort.ts'
import { qemuImgCheck, qemuImgSame } from '../support/qemu.ts'
import { makeDisk } from './job.ts'
import type { WorkersReport } from './workers.ts'

/** How a program ended. */
interface Ended {
  /** Null: by a signal, or because it hung. */
  status: number | null
  stdout: string
  stderr: string
}

/** Long enough for any of these programs on any machine: one that takes so long hangs. */
const HANGS = 100_000

/** Runs Node. */
function node(args: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { timeout: HANGS }, (error, stdout, stderr) => {
      const status = error ? ((error.code as unknown as number | undefined) ?? null) : 0
      resolve({ status, stdout, stderr })
    })
  })
}

/** Runs one of the programs beside this file. */
function program(name: string, args: string[], flags: string[] = []): Promise<Ended> {
  return node([...flags, fileURLToPath(new URL(name, import.meta.url)), ...args])
}

/** A directory with a disk. */
function setUp(test: Test): string {
  const directory = test.testdir()
  makeDisk(directory)
  return directory
}

function isBackup(test: Test, image: string): void {
  const disk = join(test.testdirName, 'disk.raw')
  test.equal(qemuImgCheck(image).status, 0, image)
  test.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'raw' }), image)
}

for (const [index, stage] of [
  'loaded',
  'started',
  'pushed',
  'copying',
  'compressing',
  'finishing',
  'finished',
  'cancelled',
  'failed',
].entries()) {
  t.test(`a program that ends when its copy is ${stage}`, async (t) => {
    const directory = setUp(t)
    const endings = [
      ['exit', 7],
      ['fall', 0],
      ['throw', 1],
    ] as const
    await Promise.all(
      someOf(endings, index).map(async ([ending, status]) => {
        const result = await program('ending.js', [directory, stage, ending])
        t.equal(result.status, status, `${ending}: ${result.stderr}`)
        // Only an open promise holds the event loop, and that one does. A program that waited for a
        // copy which nobody awaits would print that it is finished.
        const held = stage === 'finishing' && ending === 'fall'
        t.equal(result.stdout, held ? 'finished\n' : '', ending)
      }),
    )
    t.strictSame(readdirSync(directory), ['disk.raw'])
  })
}

t.test('process.exit() at any moment of a backup', async (t) => {
  const directory = setUp(t)
  const library = new URL('../../lib/index.js', import.meta.url)
  const script = `
    const { fullBackup } = await import('${library}')
    const [disk, target, delay] = process.argv.slice(1)
    setTimeout(() => process.exit(7), Number(delay))
    for (;;) await fullBackup(disk, target, { force: true })`
  const times = effort(3, 12)
  for (let i = 0; i < times; i++) {
    const delay = ((i * 80) / times).toFixed(1)
    const paths = [join(directory, 'disk.raw'), join(directory, 'backup.qcow2')]
    const args = ['--input-type=module', '-e', script, '--', ...paths, delay]
    const { status, stderr } = await node(args)
    t.equal(status, 7, `after ${delay} ms: ${stderr}`)
  }
  const files = readdirSync(directory)
  t.strictSame(
    files.filter((name) => !name.endsWith('.partial')),
    files.includes('backup.qcow2') ? ['backup.qcow2', 'disk.raw'] : ['disk.raw'],
  )
  if (files.includes('backup.qcow2')) isBackup(t, join(directory, 'backup.qcow2'))
})

t.test('a backup that is awaited at the top level holds the program', async (t) => {
  const directory = setUp(t)
  const library = new URL('../../lib/index.js', import.meta.url)
  const image = join(directory, 'backup.qcow2')
  const script = `
    const { fullBackup } = await import('${library}')
    const options = { rateLimit: ${16 * 2 ** 20} }
    const { dataBytes } = await fullBackup(process.argv[1], process.argv[2], options)
    console.log(dataBytes)`
  const args = ['--input-type=module', '-e', script, '--', join(directory, 'disk.raw'), image]
  const { status, stdout, stderr } = await node(args)
  t.equal(status, 0, stderr)
  t.equal(stdout, `${16 * 2 ** 20}\n`)
  isBackup(t, image)
})

t.test('workers that are ended at any moment', async (t) => {
  const directory = setUp(t)
  const { status, stdout, stderr } = await program('workers.js', [directory, String(effort(2, 10))])
  t.equal(status, 0, stderr)
  const { codes, errors, open }: WorkersReport = JSON.parse(stdout)
  t.strictSame(errors, [])
  // Node loses a descriptor whose open was under way when its worker was ended: the result has nobody
  // to go to. Those of the addon, two or more for each worker, must not stay.
  t.ok(open.length < 5, `files left open: ${open}`)
  for (const [work, code] of [
    ['full', 1],
    ['compressed', 1],
    ['restored', 1],
    ['forgotten', 0],
    ['exits', 3],
    ['throws', 1],
  ] as const) {
    t.ok(codes[work].length >= 1, work)
    t.strictSame(new Set(codes[work]), new Set([code]), work)
  }
  // What a worker had completed before stays.
  for (const name of ['backup.qcow2', 'small.qcow2']) {
    if (readdirSync(directory).includes(name)) isBackup(t, join(directory, name))
  }
})

t.test('ten copies at once in the main thread, and more in two workers', async (t) => {
  const directory = setUp(t)
  const { status, stderr } = await program('crowd.js', [directory])
  t.equal(status, 0, stderr)
  const images = readdirSync(directory).filter((name) => name !== 'disk.raw')
  t.equal(images.length, 16)
  for (const name of images) isBackup(t, join(directory, name))
})

t.test('a job that is collected before its last news comes does not end the process', async (t) => {
  const directory = setUp(t)
  const { status, stdout, stderr } = await program(
    'garbage.js',
    [directory, String(effort(8, 40))],
    ['--expose-gc'],
  )
  t.equal(status, 0, stderr)
  t.strictSame(JSON.parse(stdout), { wrong: 0, open: 0 }, 'dropped jobs end, and close their files')
})
