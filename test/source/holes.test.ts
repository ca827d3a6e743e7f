import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { openFile } from '../../lib/image/file.ts'
import { looksPreallocated, splitHoles } from '../../lib/source/holes.ts'
import type { Mapping } from '../../lib/source/source.ts'

const BLOCK = 65536

t.test(
  'data mappings are split where the file has holes, in whatever order they come',
  async (t) => {
    const path = join(t.testdir(), 'file')
    const blocks = Array.from({ length: 64 }, (_, i) => (i * 7) % 5 < 2 || i === 63)
    const fd = openSync(path, 'w')
    for (const [i, data] of blocks.entries()) {
      if (data) writeSync(fd, Buffer.alloc(BLOCK, 1), 0, BLOCK, i * BLOCK)
    }
    ftruncateSync(fd, blocks.length * BLOCK)
    closeSync(fd)
    const file = await openFile(path)
    t.teardown(() => file.handle.close())

    const run = fc.tuple(fc.nat(63), fc.integer({ min: 1, max: 20 }), fc.constantFrom(0, 1))
    await fc.assert(
      fc.asyncProperty(fc.array(run, { maxLength: 12 }), async (runs) => {
        const mappings: Mapping[] = [{ kind: 'hole', start: 0, length: BLOCK }]
        const expected = ['hole']
        for (const [first, wanted, index] of runs) {
          const count = Math.min(wanted, blocks.length - first)
          const start = expected.length * BLOCK
          const length = count * BLOCK
          mappings.push({ kind: 'data', start, length, store: index, offset: first * BLOCK })
          for (let i = first; i < first + count; i++) {
            expected.push(index === 1 || blocks[i] ? `data ${index} ${i}` : 'zero')
          }
        }
        const got: string[] = []
        for await (const batch of splitHoles([mappings] as never, new Map([[0, file]]))) {
          for (const mapping of batch) {
            t.equal(mapping.start, got.length * BLOCK)
            for (let i = 0; i < mapping.length / BLOCK; i++) {
              const data = mapping.kind === 'data'
              got.push(data ? `data ${mapping.store} ${mapping.offset / BLOCK + i}` : mapping.kind)
            }
          }
        }
        t.same(got, expected)
      }),
      { numRuns: 50 },
    )
  },
)

t.test("QEMU's rule when to look for holes", async (t) => {
  const file = (clusters: number, allocated: number) =>
    ({ size: clusters * 65536, allocatedBytes: allocated * 65536 }) as never
  t.notOk(looksPreallocated(file(100, 100), 65536))
  t.notOk(looksPreallocated(file(5, 4), 65536), 'one cluster may be short')
  t.ok(looksPreallocated(file(6, 4), 65536))
  t.notOk(looksPreallocated(file(110, 100), 65536))
  t.ok(looksPreallocated(file(111, 100), 65536))
})
