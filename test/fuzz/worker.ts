/**
 * Gives damaged images to the commands: worker.js CORPUS SEED SECONDS. Each command is told on
 * descriptor 3 before it runs, so that whoever watches knows which one does not end. Ends with status
 * 1 and the shrunk case on stdout when something went wrong that must not.
 */
import { writeFileSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import fc from 'fast-check'
import { watchOpens } from '../support/opens.ts'
import { edit, readings, repair, runCommand } from './commands.ts'
import { readCorpus } from './corpus.ts'
import { type Mutation, mutate, mutations } from './mutations.ts'

/** What is told, a line of JSON each. */
export interface Notice {
  /** Where the command runs; there `damaged.img` is the image `victim` as it was before. */
  directory: string
  victim: string
  args: string[]
  /** Cases before this one. */
  cases: number
  /** Of the processor until now, in seconds, and peak memory, in KiB. */
  cpu: number
  memory: number
}

/** An image of the corpus, and what is done to it. */
interface Case {
  sample: number
  /** Which of its files; undefined: the image itself. */
  file?: number
  steps: Mutation[]
  even: boolean
}

const [corpus, seed, seconds] = process.argv.slice(2)
const samples = readCorpus(corpus)
const opened = watchOpens()
let cases = 0

const someCase: fc.Arbitrary<Case> = fc.record({
  sample: fc.nat(samples.length - 1),
  file: fc.option(fc.nat(), { freq: 4, nil: undefined }),
  steps: mutations,
  even: fc.boolean(),
})

async function exercise({ sample, file, steps, even }: Case): Promise<void> {
  const { directory, image, files } = samples[sample]
  const names = Object.keys(files)
  const victim = file === undefined ? image : names[file % names.length]
  const damaged = mutate(files[victim], steps)
  process.chdir(directory)
  writeFileSync('damaged.img', damaged)
  writeFileSync(victim, damaged)
  const changes = [repair(image, even), edit(image)]
  for (const args of [...readings(image, 'pristine.img', even), ...changes]) {
    const { user, system } = process.cpuUsage()
    const memory = process.resourceUsage().maxRSS
    const used = { cases, cpu: (user + system) / 1e6, memory }
    const notice: Notice = { directory, victim, args, ...used }
    writeSync(3, `${JSON.stringify(notice)}\n`)
    await runCommand(args)
    const outside = opened().filter((path) => dirname(path) !== directory)
    if (outside.length > 0) throw new Error(`opened ${outside.join(', ')}`)
  }
  writeFileSync(victim, files[victim])
  cases++
}

const outcome = await fc.check(fc.asyncProperty(someCase, exercise), {
  seed: Number(seed),
  numRuns: 2 ** 31 - 1,
  interruptAfterTimeLimit: Number(seconds) * 1000,
  markInterruptAsFailure: false,
})
if (outcome.counterexample) {
  const [smallest] = outcome.counterexample
  console.log(fc.stringify(smallest))
  // What was tried last may have been another one.
  await exercise(smallest)
}
