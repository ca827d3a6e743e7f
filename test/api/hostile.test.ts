/** Every public function against every hostile image: it resolves, or rejects with a BackupError. */
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import * as library from '../../lib/index.ts'
import { effort } from '../support/effort.ts'
import { CALLS, type Called } from '../support/hostile-calls.ts'
import { HOSTILE_IMAGES, writeHostile } from '../support/hostile-images.ts'

t.setTimeout(1_800_000)

/** Of the processor, well above what any takes: a machine that others use is slower. */
const SECONDS = 6
/** Peak memory, KiB. */
const MEMORY = 300 * 1024
/** In a quick run each image meets every twelfth function, in turn. */
const EVERY = effort(12, 1)
const RUNNER = fileURLToPath(new URL('../support/hostile-calls.js', import.meta.url))

/** What takes no image that it opens by itself: parity runs programs, which `bounded` does. */
const OTHERS = [
  ...['compareWithQemuImg', 'factsFromQmp', 'isBackupError', 'measureSize'],
  ...['nameFromBytes', 'nameToBytes', 'validateBitmapChain'],
  // They open what is in a repository, which has tests of its own.
  ...['listRepository', 'restoreMachine', 'verifyRepository'],
]

t.test('the table has every public function', async (t) => {
  const functions = Object.entries(library)
    .filter(([, value]) => typeof value === 'function' && !/^class/.test(String(value)))
    .map(([name]) => name)
  const called = Object.keys(CALLS).map((name) => name.split(',')[0])
  t.strictSame([...new Set([...called, ...OTHERS])].sort(), functions.sort())
})

for (const [index, [name, make]] of Object.entries(HOSTILE_IMAGES).entries()) {
  t.test(`every function ends in bounds: ${name}`, async (t) => {
    const directory = t.testdir()
    const names = Object.keys(CALLS).filter((_, i) => i % EVERY === index % EVERY)
    writeHostile(join(directory, 'images'), make())
    writeFileSync(join(directory, 'images', 'empty.raw'), '')
    const notices = join(directory, 'notices')
    const fd = openSync(notices, 'w')
    const { status, signal, stderr } = spawnSync(process.execPath, [RUNNER, directory, ...names], {
      stdio: ['ignore', 'ignore', 'pipe', fd],
      // Without what tap loads into every process of Node.
      env: { ...process.env, NODE_OPTIONS: undefined },
    })
    closeSync(fd)
    const lines = readFileSync(notices, 'utf8').trim().split('\n')
    const told = lines.map((line): Partial<Called> => JSON.parse(line))
    t.equal(status, 0, `${told.at(-1)?.name}: ${signal} ${stderr}`)
    const called = told.filter((one): one is Called => one.outcome !== undefined)
    t.equal(called.length, names.length, 'every call ends')
    for (const { name, outcome, cpu, memory } of called) {
      t.match(outcome, /^(resolved|[A-Z_]+)$/, `${name}: ${outcome}`)
      t.not(outcome, 'INTERNAL', name)
      t.ok(cpu < SECONDS, `${name}: ${cpu} s`)
      t.ok(memory < MEMORY, `${name}: ${memory} KiB`)
    }
  })
}
