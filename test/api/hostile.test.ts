/** Every public function against every hostile image: it resolves, or rejects with a BackupError. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import * as library from '../../lib/index.ts'
import { MEMORY } from '../support/bounds.ts'
import { effort } from '../support/effort.ts'
import { CALLS, type Called } from '../support/hostile-calls.ts'
import { type Files, HOSTILE_IMAGES, writeHostile } from '../support/hostile-images.ts'

t.setTimeout(1_800_000)

/** Each image meets every twentieth function, or every third, in turn; EVERY=1: all of them. */
const EVERY = Number(process.env.EVERY ?? effort(20, 3))
const RUNNER = fileURLToPath(new URL('../support/hostile-calls.js', import.meta.url))

/** What takes no image that it opens by itself: parity runs programs, which `bounded` does. */
const OTHERS = [
  ...['compareWithQemuImg', 'factsFromQmp', 'isBackupError', 'measureSize'],
  ...['nameFromBytes', 'nameToBytes', 'validateBitmapChain'],
  // They open what is in a repository, which has tests of its own.
  ...['copyRepository', 'listRepository', 'pruneRepository', 'repairRepository'],
  'reportRepository',
  ...['restoreMachine', 'verifyRepository'],
  // They open what tickets name, which test/server does.
  ...['createImageServer', 'serveImages'],
]

t.test('the table has every public function', async (t) => {
  const functions = Object.entries(library)
    .filter(([, value]) => typeof value === 'function' && !/^class/.test(String(value)))
    .map(([name]) => name)
  const called = Object.keys(CALLS).map((name) => name.split(',')[0])
  t.strictSame([...new Set([...called, ...OTHERS])].sort(), functions.sort())
})

/** An image, and the functions that are called with it. */
interface Case {
  directory: string
  names: string[]
}

function setUp(t: Test, index: number, files: Files): Case {
  const directory = join(t.testdirName, `${index}`)
  mkdirSync(directory)
  writeHostile(join(directory, 'images'), files)
  writeFileSync(join(directory, 'images', 'empty.raw'), '')
  return { directory, names: Object.keys(CALLS).filter((_, i) => i % EVERY === index % EVERY) }
}

t.test('every function ends in bounds', async (t) => {
  t.testdir()
  const cases = Object.values(HOSTILE_IMAGES).map((make, index) => setUp(t, index, make()))
  const notices = join(t.testdirName, 'notices')
  const fd = openSync(notices, 'w')
  const args = ['--expose-gc', RUNNER, JSON.stringify(cases)]
  const { status, signal, stderr } = spawnSync(process.execPath, args, {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    // Without what tap loads into every process of Node.
    env: { ...process.env, NODE_OPTIONS: undefined },
  })
  closeSync(fd)
  const lines = readFileSync(notices, 'utf8').trim().split('\n')
  const told = lines.map((line): Partial<Called> => JSON.parse(line))
  const last = `${told.at(-1)?.name} in ${told.at(-1)?.directory}`
  t.equal(status, 0, `${last}: ${signal} ${stderr}`)
  const called = told.filter((one): one is Called => one.outcome !== undefined)
  t.equal(called.length, cases.flatMap(({ names }) => names).length, 'every call ends')
  const names = Object.keys(HOSTILE_IMAGES)
  for (const { directory, name, outcome, inTime, cpu, memory } of called) {
    const what = `${name}: ${names[Number(basename(directory))]}`
    const isPlain = outcome === 'resolved' || (/^[A-Z_]+$/.test(outcome) && outcome !== 'INTERNAL')
    if (isPlain && inTime && memory < MEMORY) continue
    t.fail(`${what}: ${outcome}, ${cpu} s, ${memory} KiB`)
  }
})
