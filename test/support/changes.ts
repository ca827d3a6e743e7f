/** Changes of a disk that are random but the same for the same seed. */
import { noise } from './disks.ts'

const SECTOR = 512

/** Numbers below a bound, the same for the same seed. */
export function randomNumbers(seed: number): (below: number) => number {
  const bytes = noise(2 ** 16, seed)
  let at = 0
  return (below) => {
    const number = bytes.readUInt32LE(at)
    at = (at + 4) % bytes.length
    return number % below
  }
}

/**
 * Commands of qemu-io that write, zero and discard at any sectors of a disk, ranges from a sector
 * to a fifteenth of it.
 * @param size of the disk, bytes
 */
export function randomChanges(size: number, count: number, seed: number): string[] {
  const random = randomNumbers(seed)
  return Array.from({ length: count }, () => {
    const most = random(3) === 0 ? size / 15 : 12 * SECTOR
    const length = (1 + random(Math.floor(most / SECTOR))) * SECTOR
    const start = random((size - length) / SECTOR + 1) * SECTOR
    const commands = [`write -P ${1 + random(255)}`, 'write -z', 'write -z -u', 'discard']
    return `${commands[random(6) % commands.length]} ${start} ${length}`
  })
}
