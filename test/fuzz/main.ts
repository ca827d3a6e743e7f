/**
 * Damages images at random and gives them to every command that reads images: no crash, no hang, no
 * file opened that an image may not name, and all in bounded memory.
 *   node dist/test/fuzz/main.js --seconds N [--seed N]
 * What is found is kept in build-fuzz/findings, and printed with the line that shows it again.
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { isInTime, MEMORY } from '../support/bounds.ts'
import { CLI } from '../support/cli.ts'
import { measuredAlone } from '../support/hostile.ts'
import { makeCorpus } from './corpus.ts'
import { runWorker } from './watch.ts'

/** Images that are damaged again and again. */
const IMAGES = 12

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, seed: { type: 'string' } },
})
const seed = Number(values.seed ?? Date.now() % 1_000_000)
const end = Date.now() + Number(values.seconds) * 1000
const work = resolve('build-fuzz/work')
rmSync(work, { recursive: true, force: true })
await makeCorpus(work, IMAGES, seed)

let cases = 0
let found = 0
for (let round = seed; found === 0 && Date.now() < end; round++) {
  const { failure, bounds, last } = await runWorker(work, round, (end - Date.now()) / 1000)
  cases += last?.cases ?? 0
  if (!last || (failure === undefined && !bounds)) continue
  const kept = resolve('build-fuzz/findings', String(round))
  rmSync(kept, { recursive: true, force: true })
  // Not fs.cp, which fills holes: a repair may have left a file of a terabyte.
  execFileSync('cp', ['-a', '--sparse=always', last.directory, kept])
  const asItWas = () => copyFileSync(join(kept, 'damaged.img'), join(kept, last.victim))
  asItWas()
  // A process that has run a thousand commands is not what a user has: one of its own decides.
  if (bounds) {
    const { seconds, memory } = measuredAlone(kept, last.args)
    asItWas()
    if (isInTime(seconds) && memory < MEMORY) continue
    console.log(`${seconds} s of the processor, ${memory} KiB of memory`)
  }
  console.log(failure ?? '')
  const args = last.args.map((arg) => `'${arg.replaceAll("'", "'\\''")}'`).join(' ')
  console.log(`fuzz: found with seed ${seed}: cd ${kept} && node ${CLI} ${args}`)
  found++
}
console.log(`fuzz: ${cases} damaged images, seed ${seed}, ${found} findings`)
process.exitCode = found > 0 ? 1 : 0
