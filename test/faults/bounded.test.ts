/** What is done for an image is bounded by what is there, whatever it claims. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MEMORY } from '../support/bounds.ts'
import { randomNumbers } from '../support/changes.ts'
import { effort } from '../support/effort.ts'
import { runHostile } from '../support/hostile-cases.ts'
import { COMMANDS } from '../support/hostile-commands.ts'
import { type Files, HOSTILE_IMAGES, writeHostile } from '../support/hostile-images.ts'
import type { HostileCase } from '../support/hostile-runner.ts'
import { lyingImages } from '../support/lying-images.ts'

t.setTimeout(1_800_000)

/** Bytes of all files of a case. */
const MOST_BYTES = 2 ** 20
const SEEDS = effort(4, 100)
/** Each case meets every ninth command, or every third, in turn; EVERY=1: all of them, a quarter of an hour. */
const EVERY = Number(process.env.EVERY ?? effort(9, 3))

const images: [string, () => Files][] = [
  ...Object.entries(HOSTILE_IMAGES),
  ...Array.from({ length: SEEDS }, (_, i): [string, () => Files] => [
    `made-up counts and offsets, seed ${i + 1}`,
    () => lyingImages(randomNumbers(i + 1)),
  ]),
]

const root = t.testdir()
const cases = images.map(([name, make], index): HostileCase & { name: string } => {
  const directory = join(root, String(index))
  mkdirSync(directory)
  const bytes = writeHostile(join(directory, 'images'), make())
  if (bytes > MOST_BYTES) throw new Error(`${name}: ${bytes} bytes`)
  writeFileSync(join(directory, 'images', 'empty.raw'), '')
  return { name, directory, commands: COMMANDS.filter((_, i) => i % EVERY === index % EVERY) }
})
const ended = await runHostile(cases)

for (const { name, directory, commands } of cases) {
  t.test(`every command stays in bounds: ${name}`, async (t) => {
    const { taken, crash } = ended.get(directory)!
    t.equal(crash, undefined)
    t.equal(taken.length, commands.length, 'every command ends')
    const faults = taken.flatMap(({ args, inTime, cpu, memory, stderr }) => [
      ...(inTime ? [] : [`${args.join(' ')}: ${cpu} s`]),
      ...(memory < MEMORY ? [] : [`${args.join(' ')}: ${memory} KiB`]),
      ...(/internal error|\n\s+at /.test(stderr) ? [`${args.join(' ')}: ${stderr}`] : []),
    ])
    t.strictSame(faults, [])
  })
}
