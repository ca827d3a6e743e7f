import t from 'tap'
import { describeCopy, formatExtents } from '../../lib/cli/output.ts'
import { humanLines } from '../../lib/cli/print-result.ts'
import type { Extent } from '../../lib/extents/extent.ts'

async function collect(texts: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = []
  for await (const text of texts) all.push(text)
  return all
}

t.test('the result of a copy is three lines for people', async (t) => {
  const lines = describeCopy({
    target: 'back\x1bup.qcow2',
    virtualSize: 8 * 2 ** 30,
    dataBytes: 3 * 2 ** 30,
    zeroBytes: 5 * 2 ** 30,
    unchangedBytes: 0,
    fileSize: 3 * 2 ** 30 + 2 ** 20,
    allocatedBytes: 3 * 2 ** 30,
    elapsedSeconds: 4,
    engine: 'io_uring',
    direct: true,
  })
  t.equal(
    humanLines(lines),
    [
      'back\\x1bup.qcow2: complete',
      '  disk 8 GiB: 3 GiB data, 5 GiB zero',
      '  file 3 GiB (3 GiB on disk), 4.00 s, 768 MiB/s',
      '',
    ].join('\n'),
  )
})

t.test('the result of an incremental backup tells what is unchanged, and notes', async (t) => {
  const lines = describeCopy({
    target: 'monday.qcow2',
    virtualSize: 8 * 2 ** 30,
    dataBytes: 2 ** 30,
    zeroBytes: 2 ** 30,
    unchangedBytes: 6 * 2 ** 30,
    fileSize: 2 ** 30,
    allocatedBytes: 2 ** 30,
    elapsedSeconds: 1,
    engine: 'io_uring',
    direct: true,
    notes: ["bitmap 'a\nb' is disabled"],
  })
  t.strictSame(humanLines(lines).split('\n').slice(1), [
    '  disk 8 GiB: 1 GiB data, 1 GiB zero, 6 GiB unchanged',
    '  file 1 GiB (1 GiB on disk), 1.00 s, 1 GiB/s',
    "  note: bitmap 'a\\x0ab' is disabled",
    '',
  ])
})

t.test('extents leave in pieces of bounded size', async (t) => {
  const count = 10_000
  async function* extents(): AsyncGenerator<Extent> {
    for (let i = 0; i < count; i++) {
      const zero = i % 2 === 1
      yield { hole: zero, zero, length: 65536, start: i * 65536 }
    }
  }
  const texts = await collect(formatExtents(extents()))
  t.ok(texts.length > 5, 'several writes')
  t.ok(Math.max(...texts.map((text) => text.length)) < 66_000, 'none of them long')
  const text = texts.join('')
  t.equal(text.split('\n').length, count + 1, 'an extent to a line')
  t.ok(text.startsWith('[{"start":0,"length":65536,"zero":false,"hole":false},\n {"start":65536'))
  t.equal(JSON.parse(text).length, count)

  const none = await collect(formatExtents((async function* () {})()))
  t.strictSame(none, ['[]\n'], 'an empty disk')
})
