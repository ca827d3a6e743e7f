/** What is done for an image is bounded by what is there, whatever it claims. */
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { randomNumbers } from '../support/changes.ts'
import { effort } from '../support/effort.ts'
import { COMMANDS } from '../support/hostile-commands.ts'
import { type Files, HOSTILE_IMAGES, writeHostile } from '../support/hostile-images.ts'
import type { Taken } from '../support/hostile-runner.ts'
import { lyingImages } from '../support/lying-images.ts'

t.setTimeout(1_800_000)

/** Bytes of all files of a case. */
const MOST_BYTES = 2 ** 20
/** Of the processor. */
const SECONDS = 2
/** Peak memory, KiB. */
const MEMORY = 250 * 1024
const RUNNER = fileURLToPath(new URL('../support/hostile-runner.js', import.meta.url))
const SEEDS = effort(4, 100)
/** In a quick run each case meets every ninth command, in turn. */
const EVERY = effort(9, 1)

/** Runs commands on a case in one process; each ends by itself, in bounds, with a plain message. */
function bounded(t: Test, files: Files, index: number): void {
  const commands = COMMANDS.filter((_, i) => i % EVERY === index % EVERY)
  const directory = t.testdir()
  const bytes = writeHostile(join(directory, 'images'), files)
  t.ok(bytes <= MOST_BYTES, `${bytes} bytes`)
  writeFileSync(join(directory, 'images', 'empty.raw'), '')
  const notices = join(directory, 'notices')
  const fd = openSync(notices, 'w')
  const { status, signal, stderr } = spawnSync(
    process.execPath,
    [RUNNER, directory, JSON.stringify(commands)],
    {
      stdio: ['ignore', 'ignore', 'pipe', fd],
      // Without what tap loads into every process of Node.
      env: { ...process.env, NODE_OPTIONS: undefined },
    },
  )
  closeSync(fd)
  const lines = readFileSync(notices, 'utf8').trim().split('\n')
  const taken = lines.map((line): Partial<Taken> => JSON.parse(line))
  t.equal(status, 0, `${taken.at(-1)?.args?.join(' ')}: ${signal} ${stderr}`)
  const ended = taken.filter((one): one is Taken => one.cpu !== undefined)
  t.equal(ended.length, commands.length, 'every command ends')
  for (const { args, cpu, memory, stderr } of ended) {
    const name = args.join(' ')
    t.ok(cpu < SECONDS, `${name}: ${cpu} s`)
    t.ok(memory < MEMORY, `${name}: ${memory} KiB`)
    t.notMatch(stderr, /internal error|\n\s+at /, `${name}: a plain message`)
  }
}

for (const [index, [name, make]] of Object.entries(HOSTILE_IMAGES).entries()) {
  t.test(`every command stays in bounds: ${name}`, async (t) => bounded(t, make(), index))
}

for (let seed = 1; seed <= SEEDS; seed++) {
  t.test(`every command stays in bounds: made-up counts and offsets, seed ${seed}`, async (t) =>
    bounded(t, lyingImages(randomNumbers(seed)), seed),
  )
}
