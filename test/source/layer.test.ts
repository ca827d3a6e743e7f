import fc from 'fast-check'
import t from 'tap'
import { type Layer, readLayers } from '../../lib/source/layer.ts'

/** A layer of a model: one letter per 512 bytes. o is open, z zero, d data. */
function layerOf(letters: string, index: number, windowSize: number): Layer {
  const unit = 512
  return {
    size: letters.length * unit,
    async window(at) {
      const start = Math.floor(at / (windowSize * unit)) * windowSize * unit
      return {
        start,
        end: Math.min(start + windowSize * unit, letters.length * unit),
        fill(from, to, out) {
          for (let start = from; start < to; start += unit) {
            const letter = letters[start / unit]
            if (letter === 'o') out.push({ kind: 'open', start, length: unit })
            else if (letter === 'z') out.push({ kind: 'zero', start, length: unit })
            else out.push({ kind: 'data', start, length: unit, store: index, offset: start })
          }
        },
      }
    },
  }
}

/** What the guest sees of a chain at one unit. */
function seen(chain: readonly string[], at: number): string {
  for (const [index, letters] of chain.entries()) {
    if (at >= letters.length) return 'hole'
    if (letters[at] === 'z') return 'zero'
    if (letters[at] === 'd') return `data ${index}`
  }
  return 'hole'
}

const letters = fc.string({ unit: fc.constantFrom('o', 'z', 'd'), maxLength: 40 })

t.test(
  'each layer answers for what those above leave open, and no further than its size',
  async (t) => {
    const chain = fc.array(fc.tuple(letters, fc.integer({ min: 1, max: 9 })), {
      minLength: 1,
      maxLength: 5,
    })
    await fc.assert(
      fc.asyncProperty(chain, async (models) => {
        const layers = models.map(([text, window], i) => layerOf(text, i, window))
        const got: string[] = []
        let end = 0
        for await (const batch of readLayers(layers)) {
          for (const mapping of batch) {
            t.equal(mapping.start, end)
            end += mapping.length
            for (let i = 0; i < mapping.length; i += 512) {
              got.push(mapping.kind === 'data' ? `data ${mapping.store}` : mapping.kind)
            }
          }
        }
        const chain = models.map(([text]) => text)
        t.same(
          got,
          [...chain[0]].map((_, at) => seen(chain, at)),
        )
      }),
    )
  },
)

t.test('nothing is asked for before it is wanted, and nothing that is hidden', async (t) => {
  const asked: number[] = []
  const base = layerOf('d'.repeat(20), 1, 1)
  const watched: Layer = {
    size: base.size,
    window: (at) => {
      asked.push(at / 512)
      return base.window(at)
    },
  }
  const batches = readLayers([layerOf('ddoodddddddddddddddo', 0, 20), watched])
  t.same(asked, [])
  for await (const _ of batches);
  t.same(asked, [2, 3, 19])
})

t.test('batches are bounded however much one window makes', async (t) => {
  const text = 'do'.repeat(20000)
  let most = 0
  for await (const batch of readLayers([layerOf(text, 0, 1000), layerOf(text, 1, 1000)])) {
    most = Math.max(most, batch.length)
  }
  t.ok(most <= 4096 + 1000, `${most} mappings`)
})
