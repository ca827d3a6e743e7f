import { deflateRawSync } from 'node:zlib'
import t from 'tap'
import { CHUNK, mixedContent } from '../../../scripts/perf/content.ts'

t.test('noise and text in turn, each block its own, the same each time', async (t) => {
  const content = mixedContent()
  const chunks = [0, 1, 2, 3].map((i) => content(i * CHUNK, CHUNK))
  t.ok(chunks.every((chunk) => chunk.length === CHUNK))
  const shrunk = chunks.map((chunk) => deflateRawSync(chunk).length / CHUNK)
  t.ok(shrunk[0] > 0.99 && shrunk[2] > 0.99, 'noise')
  t.ok(shrunk[1] < 0.5 && shrunk[3] < 0.5, 'text')

  const blocks = chunks.flatMap((chunk) =>
    Array.from({ length: CHUNK / 4096 }, (_, i) =>
      chunk.toString('latin1', i * 4096, (i + 1) * 4096),
    ),
  )
  t.equal(new Set(blocks).size, blocks.length)
  t.notOk(blocks.includes('\0'.repeat(4096)))

  const again = mixedContent()
  t.ok(chunks.every((chunk, i) => chunk.equals(again(i * CHUNK, CHUNK))))
})
