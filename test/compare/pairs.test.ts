/**
 * Random pairs of disks: compare says what qemu-img says, whatever the chains, and diff finds exactly
 * the granules in which the guest sees something else. A failing pair is made again with its seed:
 *   SEED=n PAIRS=1 npm test -- test/compare/pairs.test.ts
 */
import { join } from 'node:path'
import t from 'tap'
import { diffDisks } from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { DiskPairs, type MadeDisk } from '../support/disk-pairs.ts'
import { effort } from '../support/effort.ts'
import { ours, theirs } from '../support/parity.ts'

t.setTimeout(1_800_000)

/** The granules in which two disks differ, what one lacks being zero; of the first's size. */
function differing(a: Buffer, b: Buffer, granularity: number): number[] {
  const other = Buffer.alloc(a.length)
  b.copy(other)
  const found: number[] = []
  for (let at = 0; at < a.length; at += granularity) {
    const end = Math.min(at + granularity, a.length)
    if (!a.subarray(at, end).equals(other.subarray(at, end))) found.push(at / granularity)
  }
  return found
}

const from = Number(process.env.SEED ?? 1)
const pairs = Number(process.env.PAIRS ?? effort(4, 80))
t.comment(`SEED=${from} PAIRS=${pairs}`)

for (let seed = from; seed < from + pairs; seed++) {
  t.test(`SEED=${seed}`, { timeout: 1_800_000 }, async (t) => {
    const random = randomNumbers(seed + 5000)
    const dir = t.testdir()
    const disks = new DiskPairs(dir, random)
    const a = disks.chain()
    const b = random(5) === 0 ? disks.chain() : await disks.relative(a)
    const description = () => ({ made: disks.log.join('\n') })

    const same = async (options: string[], x: MadeDisk, y: MadeDisk) => {
      const formats = ['-f', x.format, '-F', y.format]
      const args = ['compare', ...options, ...formats, x.name, y.name]
      t.strictSame(await ours(args, dir), theirs(args, dir), args.join(' '), description())
    }
    await same(['-p'], a, b)
    await same(random(2) === 0 ? ['-s'] : ['-T', 'none'], b, a)

    const [first, second] = [disks.content(a), disks.content(b)]
    for (const granularity of [512, 512 * 2 ** random(12)]) {
      const found: number[] = []
      const result = await diffDisks(join(dir, a.name), join(dir, b.name), {
        granularity,
        format: a.format,
        baselineFormat: b.format,
        take(runs) {
          for (const { start, length, dirty } of runs) {
            if (!dirty) continue
            for (let at = start; at < start + length; at += granularity) {
              found.push(at / granularity)
            }
          }
        },
      })
      const expected = differing(first, second, granularity)
      t.strictSame(found, expected, `diff by ${granularity}`, description())
      t.strictSame(result.unreadable, [])
      t.equal(result.virtualSize, first.length)
    }
  })
}
