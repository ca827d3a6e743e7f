import fc from 'fast-check'
import t from 'tap'
import { compressedRange, hostOffset } from '../../../lib/format/qcow2/entries.ts'
import { decodeL2, type Run, type TableLayout } from '../../../lib/format/qcow2/tables.ts'

function layout(changes: Partial<TableLayout> = {}): TableLayout {
  const clusterBits = changes.clusterBits ?? 16
  return {
    version: 3,
    clusterBits,
    clusterSize: 2 ** clusterBits,
    extendedL2: false,
    externalDataFile: false,
    ...changes,
  }
}

/** A table of 64-bit words. */
function tableOf(words: readonly bigint[]): DataView {
  const view = new DataView(new ArrayBuffer(words.length * 8))
  for (const [i, word] of words.entries()) view.setBigUint64(i * 8, word)
  return view
}

const COPIED = 1n << 63n
const COMPRESSED = 1n << 62n
const ZERO = 1n

t.test('one entry of each kind is decoded', async (t) => {
  const c = 65536
  const words = [0n, ZERO, ZERO | 0x50000n | COPIED, 0x60000n | COPIED, 0x70000n, 0x90000n, 0n]
  const runs = decodeL2(tableOf(words), layout(), 0, 0, words.length * c)
  t.same(runs, [
    { kind: 'unallocated', start: 0, length: c },
    { kind: 'zero', start: c, length: 2 * c },
    { kind: 'data', start: 3 * c, length: 2 * c, offset: 0x60000 },
    { kind: 'data', start: 5 * c, length: c, offset: 0x90000 },
    { kind: 'unallocated', start: 6 * c, length: c },
  ] satisfies Run[])
})

t.test('reserved bits do not change where a cluster is', async (t) => {
  const runs = decodeL2(tableOf([0x3f000000000001fen | 0x50000n]), layout(), 0, 0, 65536)
  t.same(runs, [{ kind: 'data', start: 0, length: 65536, offset: 0x50000 }])
  t.equal(hostOffset(tableOf([0x7f000000000101ffn | COPIED]), 0), 0x10000)
})

t.test('offsets are exact up to bit 55', async (t) => {
  const host = (1n << 56n) - 65536n
  t.equal(hostOffset(tableOf([host]), 0), Number(host))
  const [run] = decodeL2(tableOf([host]), layout(), 0, 0, 65536)
  t.equal(run.kind === 'data' && run.offset, Number(host))
})

t.test('entries that cannot be true name their guest offset', async (t) => {
  const base = 2 ** 29
  const bad = (changes: Partial<TableLayout>, words: bigint[], why: RegExp) =>
    t.throws(() => decodeL2(tableOf(words), layout(changes), base, base, base + 65536), {
      code: 'BAD_IMAGE',
      name: 'FormatError',
      message: new RegExp(`^guest offset 0x20000000: ${why.source}$`),
    })
  bad({ version: 2 }, [ZERO], /zero cluster in a version 2 image/)
  bad({}, [0x50200n], /cluster offset 0x50200 is unaligned/)
  bad({}, [0x50200n | ZERO], /cluster offset 0x50200 is unaligned/)
  bad(
    { externalDataFile: true },
    [COMPRESSED | 5n],
    /compressed cluster in an image with a data file/,
  )
  bad(
    { externalDataFile: true },
    [0x50000n | COPIED],
    /lies at another offset, 0x50000, of the data file/,
  )
  bad({ externalDataFile: true }, [COPIED], /lies at another offset, 0x0, of the data file/)
  bad({ extendedL2: true }, [0x50000n, (1n << 32n) | 1n], /invalid subcluster bitmap/)
  bad({ extendedL2: true }, [0n, 1n], /invalid subcluster bitmap/)
})

t.test('offset 0 of a data file is told by the flag', async (t) => {
  const runs = decodeL2(tableOf([COPIED, 0n]), layout({ externalDataFile: true }), 0, 0, 131072)
  t.same(runs, [
    { kind: 'data', start: 0, length: 65536, offset: 0 },
    { kind: 'unallocated', start: 65536, length: 65536 },
  ])
})

t.test('compressed descriptors are decoded', async (t) => {
  // The bits of the offset and of the count for the cluster sizes of the reference.
  for (const [clusterBits, x] of [
    [9, 61],
    [16, 54],
    [21, 49],
  ]) {
    await fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: (1n << BigInt(Math.min(x, 53))) - 1n }),
        fc.bigInt({ min: 0n, max: (1n << BigInt(62 - x)) - 1n }),
        (offset, sectors) => {
          const word = COMPRESSED | (sectors << BigInt(x)) | offset
          const view = tableOf([word])
          const range = compressedRange(view, 0, clusterBits)
          t.equal(range.offset, Number(offset))
          t.equal(range.size, Number((sectors + 1n) * 512n - (offset % 512n)))
        },
      ),
      { numRuns: 50 },
    )
  }
})

/** Another decoder, byte by byte in sectors and with BigInt: what the fast one is held against. */
function plain(words: readonly bigint[], l: TableLayout, from: number, to: number): string[] {
  const out: string[] = []
  const step = l.extendedL2 ? l.clusterSize / 32 : l.clusterSize
  const unit = Math.min(step, 512)
  for (let at = from; at < to; at += unit) {
    const index = Math.floor(at / l.clusterSize)
    const word = words[l.extendedL2 ? index * 2 : index]
    const host = word & 0x00fffffffffffe00n
    const within = at - index * l.clusterSize
    if (word & COMPRESSED) out.push(`compressed ${index} ${within}`)
    else if (l.extendedL2) {
      const sub = BigInt(Math.floor(within / step))
      const map = words[index * 2 + 1]
      if ((map >> sub) & 1n) out.push(`data ${Number(host) + within}`)
      else out.push((map >> (sub + 32n)) & 1n ? 'zero' : 'unallocated')
    } else if (word & ZERO) out.push('zero')
    else out.push(host ? `data ${Number(host) + within}` : 'unallocated')
  }
  return out
}

function paint(runs: readonly Run[], l: TableLayout, base: number): string[] {
  const out: string[] = []
  for (const run of runs) {
    for (let i = 0; i < run.length; i += 512) {
      if (run.kind === 'data') out.push(`data ${run.offset + i}`)
      else if (run.kind === 'compressed') {
        out.push(`compressed ${Math.floor((run.start - base) / l.clusterSize)} ${run.within + i}`)
      } else out.push(run.kind)
    }
  }
  return out
}

/** Entries near each other in the host, so that neighbours often continue each other. */
const standard = fc.oneof(
  fc.constant(0n),
  fc.constant(ZERO),
  fc.integer({ min: 1, max: 6 }).map((n) => (BigInt(n) << 14n) | COPIED),
  fc.integer({ min: 1, max: 6 }).map((n) => (BigInt(n) << 14n) | ZERO),
  fc.constant(COMPRESSED | 12345n),
)
const bitmap = fc
  .array(fc.constantFrom(0n, 1n, 1n << 32n), { minLength: 32, maxLength: 32 })
  .map((bits) => bits.reduce((map, bit, n) => map | (bit << BigInt(n)), 0n))
const extended = fc.tuple(
  fc.integer({ min: 1, max: 6 }).map((n) => BigInt(n) << 14n),
  fc.oneof(bitmap, fc.constantFrom(0n, 0xffffffffn, 0xffffffffn << 32n)),
)

t.test('any table, any part of it: as the plain decoder says', async (t) => {
  const range = fc.tuple(fc.nat(16 * 32), fc.nat(16 * 32))
  const check = (words: bigint[], l: TableLayout, entries: number, a: number, b: number) => {
    const sectors = (entries * l.clusterSize) / 512
    const from = (Math.min(a, b) % sectors) * 512
    const to = Math.min(entries * l.clusterSize, Math.max(a, b) * 512)
    const base = 7 * 2 ** 30
    if (from >= to) return
    const runs = decodeL2(tableOf(words), l, base, base + from, base + to)
    t.same(paint(runs, l, base), plain(words, l, from, to))
    for (const [i, run] of runs.entries()) {
      const next = runs[i + 1]
      if (next?.kind !== run.kind || run.kind === 'compressed') continue
      if (run.kind === 'data' && next.kind === 'data') {
        t.not(run.offset + run.length, next.offset, 'merged as far as can be')
      } else t.fail('equal neighbours')
    }
  }
  const small = layout({ clusterBits: 14 })
  fc.assert(
    fc.property(fc.array(standard, { minLength: 1, maxLength: 16 }), range, (words, [a, b]) =>
      check(words, small, words.length, a, b),
    ),
  )
  fc.assert(
    fc.property(fc.array(extended, { minLength: 1, maxLength: 8 }), range, (pairs, [a, b]) =>
      check(pairs.flat(), { ...small, extendedL2: true }, pairs.length, a, b),
    ),
  )
})
