import t from 'tap'
import { MapInPieces, Pieces, pieceSizeOf } from '../../lib/report/image/pieces.ts'
import { seeded } from '../support/random.ts'

t.test('a map has at most 512 pieces, in whole sectors', async (t) => {
  t.equal(pieceSizeOf(0), 512)
  t.equal(pieceSizeOf(512 * 512), 512)
  t.equal(pieceSizeOf(512 * 512 + 512), 1024)
  for (const size of [1, 10 ** 6, 2 ** 40 + 512, 2 ** 53 - 1]) {
    const count = Math.ceil(size / pieceSizeOf(size))
    t.ok(count >= 1 && count <= 512 && pieceSizeOf(size) % 512 === 0, `${size}: ${count}`)
  }
  t.strictSame(new Pieces(0).bytes, [])
})

t.test('runs are added up by the piece that each byte of them lies in', async (t) => {
  const random = seeded(7)
  const size = 512 * 700
  const unit = pieceSizeOf(size)
  const pieces = new Pieces(size)
  const expected = new Array(Math.ceil(size / unit)).fill(0)
  for (let at = 0; at < size; ) {
    const length = Math.min(size - at, 1 + Math.floor(random() * 3000))
    if (random() < 0.5) {
      pieces.add(at, length)
      for (let byte = at; byte < at + length; byte++) expected[Math.floor(byte / unit)]++
    }
    at += length
  }
  t.strictSame(pieces.bytes, expected)
  t.equal(
    pieces.sum,
    expected.reduce((sum, bytes) => sum + bytes, 0),
  )
})

t.test('what is stored and not seen is hidden', async (t) => {
  const [own, seen] = [new MapInPieces(4096), new MapInPieces(4096)]
  own.data.add(0, 2048)
  own.compressed.add(2048, 512)
  own.zero.add(3072, 512)
  seen.data.add(512, 512)
  seen.compressed.add(2048, 512)
  t.match(own.result(seen), {
    ...{ data: 512, compressed: 512, zero: 512, hidden: 1536 },
    map: { hidden: [512, 0, 512, 512, 0, 0, 0, 0], zero: [0, 0, 0, 0, 0, 0, 512, 0] },
  })
  t.match(own.result(), { data: 2048, hidden: 0 })
})
