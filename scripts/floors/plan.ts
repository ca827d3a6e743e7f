import { type House, roomOf } from './graph.ts'

/** The plan of a side as text: its floors, topmost first, with purpose, size and imports of each room. */
export function planOf(house: House, purposes: Record<string, string>): string {
  const { side } = house
  const text = [`${side.folder}/  ${figures([...house.lines.values()])}`]
  for (const [i, rooms] of [...side.floors.entries()].reverse()) {
    for (const room of rooms) {
      const files = [...house.lines].filter(([file]) => roomOf(file) === room)
      if (files.length === 0) continue
      const lines = files.map(([, count]) => count)
      text.push(`${String(i).padStart(3)}  ${room.padEnd(10)} ${purposes[room] ?? ''}`)
      const below = roomsBelow(house, room)
      text.push(`     ${''.padEnd(10)} ${figures(lines)}${below && `; on ${below}`}`)
    }
  }
  return `${text.join('\n')}\n`
}

function figures(lines: number[]): string {
  const sorted = [...lines].sort((a, b) => a - b)
  const median = sorted[sorted.length >> 1]
  const count = sorted.length === 1 ? '1 file' : `${sorted.length} files`
  return `${count}, median ${median}, largest ${sorted.at(-1)} lines`
}

function roomsBelow(house: House, room: string): string {
  const rooms = new Set<string>()
  for (const [file, arrows] of house.arrows) {
    if (roomOf(file) !== room) continue
    for (const { to } of arrows) if (roomOf(to) !== room) rooms.add(roomOf(to))
  }
  return [...rooms].sort().join(', ')
}
