/** Damage to qcow2 images, of the kinds that programs, disks and people do. */
import { truncateSync } from 'node:fs'
import { peek, peek64, poke, sizeOf } from './patch.ts'
import type { Random } from './random-image.ts'

/** Where the tables of an image are, as its header says. */
interface Tables {
  clusterSize: number
  l1: { offset: number; entries: number }
  refcounts: { offset: number; entries: number }
}

/**
 * Damages an image: entries of its tables, its header's fields, bits anywhere, or its end.
 * @param random decides
 * @returns the damage, for the message of a failing test
 */
export function damage(path: string, random: Random): string[] {
  const done: string[] = []
  for (let i = random(4); i >= 0; i--) done.push(damageOnce(path, random))
  return done
}

function damageOnce(path: string, random: Random): string {
  const kinds = [
    l1Entry,
    l2Entry,
    l2Entry,
    l2Entry,
    refcount,
    refcount,
    blockEntry,
    anyByte,
    header,
    cut,
  ]
  return kinds[random(kinds.length)](path, random)
}

function tablesOf(path: string): Tables {
  return {
    clusterSize: 2 ** peek(path, 20, 4).readUInt32BE(),
    l1: { offset: Number(peek64(path, 40)), entries: peek(path, 36, 4).readUInt32BE() },
    refcounts: {
      offset: Number(peek64(path, 48)),
      entries: (peek(path, 56, 4).readUInt32BE() * 2 ** peek(path, 20, 4).readUInt32BE()) / 8,
    },
  }
}

/** Usually an existing entry. */
function pick(path: string, { offset, entries }: Tables['l1'], random: Random): number {
  if (offset >= sizeOf(path)) return random(sizeOf(path) - 8)
  const used: number[] = []
  for (let i = 0; i < Math.min(entries, 4096); i++) {
    if (peek64(path, offset + i * 8) !== 0n) used.push(offset + i * 8)
  }
  if (used.length === 0 || random(8) === 0) return offset + random(Math.max(1, entries)) * 8
  return used[random(used.length)]
}

/** Another value for an entry: its flags, a bit, or where it points to. */
function changed(entry: bigint, path: string, random: Random): bigint {
  const { clusterSize } = tablesOf(path)
  const clusters = Math.ceil(sizeOf(path) / clusterSize)
  switch (random(7)) {
    case 0:
      return entry ^ (1n << 63n)
    case 1:
      return entry ^ (1n << 62n)
    case 2:
      return entry ^ 1n
    case 3:
      return entry ^ (1n << BigInt(random(64)))
    case 4:
      return (1n << 63n) | BigInt(random(clusters + 2) * clusterSize)
    case 5:
      return BigInt(random(clusters) * clusterSize + random(2) * 512)
    default:
      return 0n
  }
}

function changeAt(path: string, at: number, random: Random, what: string): string {
  const before = peek64(path, at)
  const after = changed(before, path, random)
  poke(path, at, after)
  return `${what} at ${at}: 0x${before.toString(16)} becomes 0x${after.toString(16)}`
}

function l1Entry(path: string, random: Random): string {
  return changeAt(path, pick(path, tablesOf(path).l1, random), random, 'L1 entry')
}

function l2Entry(path: string, random: Random): string {
  const { clusterSize, l1 } = tablesOf(path)
  const table = Number(peek64(path, pick(path, l1, random)) & 0x00fffffffffffe00n)
  if (table === 0 || table > sizeOf(path)) return anyByte(path, random)
  const at = pick(path, { offset: table, entries: clusterSize / 8 }, random)
  return changeAt(path, at, random, 'L2 entry')
}

function refcount(path: string, random: Random): string {
  const { clusterSize, refcounts } = tablesOf(path)
  const block = Number(peek64(path, pick(path, refcounts, random)) & ~0x1ffn)
  const used = Math.min(clusterSize, 64)
  const at = block + random(used)
  if (block === 0 || at >= sizeOf(path)) return anyByte(path, random)
  const [before, after] = [peek(path, at, 1)[0], random(256)]
  poke(path, at, Buffer.from([after]))
  return `refcounts at ${at}: ${before} becomes ${after}`
}

function blockEntry(path: string, random: Random): string {
  return changeAt(path, pick(path, tablesOf(path).refcounts, random), random, 'refcount block')
}

function anyByte(path: string, random: Random): string {
  const at = random(sizeOf(path))
  const after = random(256)
  poke(path, at, Buffer.from([after]))
  return `byte ${at} becomes ${after}`
}

/** A field of the header, but for those that make it another kind of file. */
function header(path: string, random: Random): string {
  const at = 24 + random(88)
  const bit = random(8)
  poke(path, at, Buffer.from([peek(path, at, 1)[0] ^ (1 << bit)]))
  return `header's byte ${at}: bit ${bit} changes`
}

function cut(path: string, random: Random): string {
  const size = Math.max(1024, Math.floor((sizeOf(path) * (50 + random(50))) / 100))
  truncateSync(path, size)
  return `cut to ${size} bytes`
}
