import { peek, peek64 } from './patch.ts'

/** Offsets of the L2 tables of an image's active L1 table; 0: none. */
export function l2Offsets(image: string): number[] {
  const entries = peek(image, 36, 4).readUInt32BE()
  const table = peek(image, Number(peek64(image, 40)), entries * 8)
  return Array.from({ length: entries }, (_, i) => {
    return Number(table.readBigUInt64BE(i * 8) & 0x00fffffffffffe00n)
  })
}

/** How many L1 entries name an L2 table that another entry names too. */
export function sharedTables(image: string): number {
  const users = new Map<number, number>()
  for (const offset of l2Offsets(image)) users.set(offset, (users.get(offset) ?? 0) + 1)
  users.delete(0)
  return [...users.values()].filter((count) => count > 1).reduce((sum, count) => sum + count, 0)
}
