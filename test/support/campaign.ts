/**
 * The five commands beside those of the installed qemu-img, over random images: made by it, by
 * qemu-io and by us, and for `check` damaged too. There are two halves, for two processors. A failing
 * image is made again with its seed:
 *   SEED=n IMAGES=1 npm test -- test/qemu-img/campaign-1.test.ts
 * and other images are looked at with another seed and number.
 */
import { closeSync, fsyncSync, openSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { atLeast, parseVersion } from '../../lib/qemu-img/version.ts'
import { randomNumbers } from './changes.ts'
import { damage } from './damage.ts'
import { ours, theirs, VERSION } from './parity.ts'
import { run } from './qemu.ts'
import { type Random, type RandomImage, randomImage } from './random-image.ts'

/** Looks at images of the seeds from `first` on; the environment may say which, and how many. */
export function campaign(first: number, count: number): void {
  const from = Number(process.env.SEED ?? first)
  const images = Number(process.env.IMAGES ?? count)
  t.setTimeout(1_800_000)
  t.comment(`SEED=${from} IMAGES=${images}`)
  for (let seed = from; seed < from + images; seed++) look(seed)
  t.test('hardly any pair was left out', (t) => {
    let [asked, skipped] = [0, 0]
    for (const [command, count] of counts) {
      const { equal, asked: of, skipped: out } = count
      t.comment(`${command}: ${equal} of ${of} equal, ${out} left out`)
      asked += of
      skipped += out
    }
    t.ok(skipped <= 5 + asked / 100, `${skipped} of ${asked} were left out`)
    t.end()
  })
}

/** Damaged images that we refuse on purpose, and QEMU does not. */
const REFUSED = [
  // Damage may make an image version 2, which records no format.
  'its format is not recorded, and not guessed',
  // It may also make a table so large that each of its entries is an error.
  'the image refers to the same tables over and over',
  // Or name snapshots that the file does not hold.
  'its snapshot table continues past the end of the file',
]

/**
 * Pairs by their command. Some are left out, because QEMU crashed or because we refuse the image. They
 * are rare: many of them would mean that we refuse too much.
 */
const counts = new Map<string, { asked: number; equal: number; skipped: number }>()

function countOf([command]: readonly string[]) {
  const count = counts.get(command) ?? { asked: 0, equal: 0, skipped: 0 }
  counts.set(command, count)
  return count
}

function look(seed: number): void {
  // qemu-img takes its time to print that each of 65536 snapshots is wrong.
  t.test(`SEED=${seed}`, { timeout: 1_800_000 }, async (t) => {
    const random = randomNumbers(seed)
    const dir = t.testdir()
    const image = await randomImage(dir, random)
    const name = image.path.slice(dir.length + 1)
    writeOut(dir)
    for (const args of commands(name, image, random)) await same(args)

    if (image.format === 'qcow2') {
      const damaged = `damaged ${name}`
      // It may be large, but not its data.
      run('cp', ['--sparse=always', image.path, join(dir, damaged)])
      const done = damage(join(dir, damaged), random)
      image.description += `\n${done.join('\n')}`
      writeOut(dir)
      for (const args of commandsOnDamaged(damaged, random)) await same(args)
    }

    async function same(args: readonly string[]): Promise<void> {
      const [a, b] = [await ours(args, dir), theirs(args, dir)]
      const count = countOf(args)
      count.asked++
      const crashed = b.status === null || b.status > 100
      const damaged = args.some((arg) => arg.startsWith('damaged '))
      const refused = damaged && REFUSED.some((text) => a.stderr.includes(text))
      if (crashed || refused) {
        count.skipped++
        return
      }
      const equal = JSON.stringify(a) === JSON.stringify(b)
      if (equal) count.equal++
      else t.strictSame(a, b, args.join(' '), { description: image.description })
    }
    t.pass('all the same')
  })
}

/** While the system writes a file out, its reported holes change: between ours and theirs, too. */
function writeOut(dir: string): void {
  for (const name of readdirSync(dir)) {
    const file = openSync(join(dir, name), 'r')
    fsyncSync(file)
    closeSync(file)
  }
}

const JSON_OUTPUT = '--output=json'
const HAS_LIMITS = atLeast(parseVersion(VERSION)!, 10, 2)

function commands(name: string, { format }: RandomImage, random: Random): string[][] {
  const range = ['-s', String(random(2 ** 20)), '-l', String(random(2 ** 20))]
  const option = random(2) === 0 ? 'cluster_size' : 'refcount_bits'
  const value = option === 'cluster_size' ? 512 * 2 ** random(13) : 2 ** random(7)
  const limits = [
    ['info', '--limits', name],
    ['info', '--limits', '-t', 'none', JSON_OUTPUT, name],
  ]
  const either = <T>(a: T, b: T): T => (random(2) === 0 ? a : b)
  return [
    either(['info', '--backing-chain', name], ['info', '-f', format, name]),
    either(['info', '--backing-chain', JSON_OUTPUT, name], ['info', JSON_OUTPUT, name]),
    ['check', name],
    ['check', JSON_OUTPUT, name],
    ['map', name],
    either(['map', JSON_OUTPUT, name], ['map', JSON_OUTPUT, ...range, name]),
    either(['compare', name, name], ['compare', '-s', '-f', format, '-F', 'raw', name, name]),
    ['measure', '-O', 'qcow2', '-o', `${option}=${value}`, name],
    ['measure', JSON_OUTPUT, '-O', either('qcow2', 'raw'), name],
    ...(HAS_LIMITS ? limits : []),
  ]
}

function commandsOnDamaged(name: string, random: Random): string[][] {
  return [
    ['check', '-f', 'qcow2', name],
    ['check', '-f', 'qcow2', JSON_OUTPUT, name],
    random(2) === 0 ? ['info', '-f', 'qcow2', name] : ['map', '-f', 'qcow2', JSON_OUTPUT, name],
  ]
}
