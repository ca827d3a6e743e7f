import fc from 'fast-check'
import t from 'tap'
import { decodeText, encodeText } from '../lib/text.ts'

t.test('a name in UTF-8 is itself as text', async (t) => {
  for (const text of ['', 'plain', 'é日😀', '\ufffd', 'a\0b']) {
    t.equal(decodeText(Buffer.from(text)), text)
    t.strictSame(encodeText(text), Buffer.from(text))
  }
})

t.test('bytes that are not UTF-8 stand for themselves', async (t) => {
  t.equal(decodeText(Buffer.from([0x61, 0xff, 0xc3, 0xa9])), 'a\udcffé')
  t.equal(decodeText(Buffer.from([0xed, 0xb2, 0x80])), '\udced\udcb2\udc80', 'half a pair')
  t.equal(decodeText(Buffer.from([0xff, 0xef, 0xbf, 0xbd])), '\udcff\ufffd')
})

t.test('any bytes come back, and different ones are different', async () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 12 }),
    fc.array(
      fc.constantFrom(0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xb2, 0xef, 0xbf, 0xbd, 0x61),
    ),
  )
  fc.assert(
    fc.property(bytes, (array) =>
      encodeText(decodeText(Buffer.from(array))).equals(Buffer.from(array)),
    ),
    { numRuns: 2000 },
  )
})
