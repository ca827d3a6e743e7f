import t from 'tap'
import {
  type BitmapFacts,
  factsFromQmp,
  type ImageFacts,
  validateBitmapChain,
} from '../../../lib/index.ts'

/** A sound bitmap `b`. */
const B: BitmapFacts = {
  name: 'b',
  granularity: 65536,
  recording: true,
  persistent: true,
  inconsistent: false,
}
const DISABLED = { ...B, recording: false }
const BROKEN = { ...B, inconsistent: true }

/** A chain of images `top`, `1`, `2` …, each with the bitmap as it says, or without. */
function chainOf(...found: (BitmapFacts | undefined | string)[]): ImageFacts[] {
  return found.map((one, i) => ({
    image: i === 0 ? 'top' : String(i),
    bitmaps: typeof one === 'object' ? [one] : [],
    cannot: typeof one === 'string' ? one : undefined,
  }))
}

/** What is wrong with bitmap `b` in a chain; without the remedies. */
function reasonsOf(chain: readonly ImageFacts[]): string[] {
  const health = validateBitmapChain(chain)
  if (health.length === 0) return ['none']
  const [{ name, valid, reasons, images }] = health
  if (name !== 'b' || images.length !== chain.length) return ['not told']
  if (valid !== (reasons.length === 0)) return ['said to be valid']
  return reasons.map((reason) => reason.replace(/;.*/, ''))
}

t.test('each fault of a bitmap in a chain is named', async (t) => {
  const matrix: [string, ImageFacts[], string[]][] = [
    ['in the only image', chainOf(B), []],
    ['in all', chainOf(B, B, B), []],
    ['in a run from the top', chainOf(B, B, undefined, undefined), []],
    ['over a raw file', chainOf(B, 'it is raw'), []],
    ['of different granularities', chainOf(B, { ...B, granularity: 4096 }), []],
    ['in none', chainOf(undefined, undefined), ['none']],
    [
      'absent in the top',
      chainOf(undefined, B),
      ["top: has no bitmap 'b', but 1 below it has one: writes to the top are not recorded"],
    ],
    [
      'a gap',
      chainOf(B, undefined, B),
      ["1: has no bitmap 'b', but 2 below it has one: writes here were not recorded"],
    ],
    [
      'a gap of two images is one',
      chainOf(B, undefined, undefined, B),
      ["1: has no bitmap 'b', but 3 below it has one: writes here were not recorded"],
    ],
    [
      'two gaps',
      chainOf(B, undefined, B, undefined, B),
      [
        "1: has no bitmap 'b', but 2 below it has one: writes here were not recorded",
        "3: has no bitmap 'b', but 4 below it has one: writes here were not recorded",
      ],
    ],
    [
      'a layer of version 2',
      chainOf(B, 'it is of version 2', B),
      [
        "1: has no bitmap 'b' (it is of version 2), but 2 below it has one: writes here were not recorded",
      ],
    ],
    [
      'disabled in the middle',
      chainOf(B, DISABLED, B),
      ["1: bitmap 'b' is disabled: writes made meanwhile are not recorded"],
    ],
    [
      'disabled in the top',
      chainOf(DISABLED, B),
      ["top: bitmap 'b' is disabled: writes made meanwhile are not recorded"],
    ],
    [
      'inconsistent in the base',
      chainOf(B, BROKEN),
      ["1: bitmap 'b' is inconsistent: a process that had the image open did not store it"],
    ],
    [
      'only in memory',
      chainOf({ ...B, persistent: false }),
      ["top: bitmap 'b' is only in memory and is lost when the process ends"],
    ],
    [
      'all at once',
      chainOf(undefined, DISABLED, BROKEN),
      [
        "top: has no bitmap 'b', but 1 below it has one: writes to the top are not recorded",
        "1: bitmap 'b' is disabled: writes made meanwhile are not recorded",
        "2: bitmap 'b' is inconsistent: a process that had the image open did not store it",
      ],
    ],
  ]
  for (const [name, chain, reasons] of matrix) t.strictSame(reasonsOf(chain), reasons, name)
})

t.test('each bitmap by itself, in the order in which they come up', async (t) => {
  const chain = [
    { image: 'top', bitmaps: [B, { ...B, name: 'x\ny', recording: false }] },
    { image: 'base', bitmaps: [{ ...B, name: 'old' }, B] },
  ]
  const health = validateBitmapChain(chain)
  t.strictSame(
    health.map(({ name, valid }) => [name, valid]),
    [
      ['b', true],
      ['x\ny', false],
      ['old', false],
    ],
  )
  t.strictSame(health[1].images, [
    { image: 'top', present: true, recording: false, inconsistent: false, granularity: 65536 },
    { image: 'base', present: false, recording: false, inconsistent: false, granularity: null },
  ])
  t.match(health[1].reasons[0], /^top: bitmap 'x\\x0ay' is disabled: .*; enable it only if /)
})

t.test("what QMP says: nodes by name, jobs' bitmaps left out", async (t) => {
  const nodes = [
    { 'node-name': 'file0', file: '/base' },
    {
      'node-name': 'fmt0',
      file: '/base',
      'dirty-bitmaps': [
        { name: 'b', granularity: 4096, recording: true, persistent: true, inconsistent: true },
        { granularity: 65536, recording: true, persistent: false },
      ],
    },
    {
      'node-name': 'fmt1',
      'dirty-bitmaps': [{ name: 'b', granularity: 65536, recording: true, persistent: false }],
    },
  ]
  t.strictSame(factsFromQmp(nodes, ['fmt1', 'fmt0', 'file0']), [
    { image: 'fmt1', bitmaps: [{ ...B, persistent: false }] },
    { image: '/base', bitmaps: [{ ...B, granularity: 4096, inconsistent: true }] },
    { image: '/base', bitmaps: [] },
  ])
  t.throws(() => factsFromQmp(nodes, ['gone']), { message: "chain: there is no node 'gone'" })
})
