/** Damage to images as lists of steps: fast-check makes them up, and shrinks those that do harm. */
import fc from 'fast-check'
import { type Place, placesOf } from './places.ts'

/** Names that an image may give to what it builds on; see `corpus.ts` for what is there. */
export const NAMES = [
  ...['sound.raw', 'pristine.img', 'link', 'fifo', '.', 'missing', '', '../outside/secret'],
  ...['/etc/hostname', '/dev/zero', '/dev/stdin', 'file:/etc/hostname', 'nbd://127.0.0.1/x'],
  ...['json:{"driver":"file","filename":"/etc/hostname"}', 'a'.repeat(1023), '\x1b[2J\u202e'],
]

const FORMATS = ['raw', 'qcow2', 'luks', '']

/** Numbers at which fields of 8 to 64 bits change their meaning. */
const EDGES = [
  ...[0n, 1n, 2n, 3n, 7n, 8n, 9n, 20n, 21n, 22n, 63n, 64n, 104n, 112n, 255n, 512n, 65535n, 65536n],
  ...[31n, 32n, 53n, 56n, 62n, 63n, 64n].flatMap((bits) => [2n ** bits - 1n, 2n ** bits]),
  ...[2n ** 56n - 512n, 2n ** 63n - 512n, 2n ** 64n - 512n],
]

/** A value for a field or an entry: a number, or an offset of something in the image, with flags. */
type Value = { edge: number } | { to: number; plus: number; flags: bigint }

/** One step. Positions are taken modulo what there is. */
export type Mutation =
  | { kind: 'flip'; place: number; at: number; bit: number }
  | { kind: 'set'; place: number; entry: number; value: Value }
  | { kind: 'fill'; place: number; from: number; step: number; value: Value }
  | { kind: 'splice'; from: number; to: number; length: number }
  | { kind: 'resize'; percent: number; sectors: number }
  | { kind: 'name'; role: 'backing' | 'data'; name: string; format: string }

const value: fc.Arbitrary<Value> = fc.oneof(
  fc.record({ edge: fc.nat(EDGES.length - 1) }),
  fc.record({
    to: fc.nat(),
    plus: fc.constantFrom(0, 0, 0, 8, 512, 4096, 65536),
    flags: fc.constantFrom(0n, 1n, 1n << 62n, 1n << 63n, 3n << 62n, (1n << 63n) | 1n),
  }),
)

const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('flip'),
      place: fc.nat(),
      at: fc.nat(),
      bit: fc.nat(7),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('set'), place: fc.nat(), entry: fc.nat(), value }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('fill'),
      place: fc.nat(),
      from: fc.nat(),
      step: fc.nat(2),
      value,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('splice'),
      from: fc.nat(),
      to: fc.nat(),
      length: fc.nat(70_000),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('resize'),
      percent: fc.nat(110),
      sectors: fc.nat(130),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('name'),
      role: fc.constantFrom('backing', 'data'),
      name: fc.constantFrom(...NAMES),
      format: fc.constantFrom(...FORMATS),
    }),
  },
)

/** Steps, most often a few. */
export const mutations: fc.Arbitrary<Mutation[]> = fc.array(mutation, {
  minLength: 1,
  maxLength: 8,
})

/** Largest image that is made, bytes. */
const MOST = 2 ** 20

/** A damaged copy of an image. */
export function mutate(image: Buffer, steps: readonly Mutation[]): Buffer {
  const places = placesOf(image)
  let bytes: Buffer = Buffer.from(image)
  for (const step of steps) bytes = apply(bytes, step, places)
  return bytes
}

function apply(bytes: Buffer, step: Mutation, places: readonly Place[]): Buffer {
  switch (step.kind) {
    case 'flip': {
      const { at, length } = places[step.place % places.length]
      const byte = at + (step.at % length)
      if (byte < bytes.length) bytes[byte] ^= 1 << step.bit
      return bytes
    }
    case 'set': {
      const place = places[step.place % places.length]
      put(
        bytes,
        place.at + (step.entry % (place.length / place.width)) * place.width,
        place.width,
        step.value,
        places,
      )
      return bytes
    }
    case 'fill': {
      const { at, length, width } = places[step.place % places.length]
      const first = step.from % (length / width)
      for (let i = first; i < length / width; i += 1 + step.step) {
        put(bytes, at + i * width, width, step.value, places)
      }
      return bytes
    }
    case 'splice': {
      if (bytes.length === 0) return bytes
      const [from, to] = [step.from % bytes.length, step.to % bytes.length]
      bytes.copy(bytes, to, from, from + step.length)
      return bytes
    }
    case 'resize': {
      const size = Math.floor((bytes.length * step.percent) / 100) + (step.sectors - 65) * 512
      const wanted = Math.max(0, Math.min(MOST, size))
      return Buffer.concat([bytes.subarray(0, wanted)], wanted)
    }
    case 'name':
      return name(bytes, step)
  }
}

/** Writes a value where there is room for it. */
function put(
  bytes: Buffer,
  at: number,
  width: number,
  value: Value,
  places: readonly Place[],
): void {
  if (at + width > bytes.length) return
  const number =
    'edge' in value
      ? EDGES[value.edge]
      : BigInt(places[value.to % places.length].at + value.plus) | value.flags
  const narrow = BigInt.asUintN(width * 8, number)
  bytes.write(narrow.toString(16).padStart(width * 2, '0'), at, 'hex')
}

/** Makes the header name a file, with the only extension that belongs to that. */
function name(bytes: Buffer, step: Mutation & { kind: 'name' }): Buffer {
  const v3 = bytes.length > 104 && bytes.readUInt32BE(4) === 3
  const at = v3 ? bytes.readUInt32BE(100) : 72
  const text = Buffer.from(step.name)
  const [type, value] =
    step.role === 'data' ? [0x44415441, text] : [0xe2792aca, Buffer.from(step.format)]
  const extension = Buffer.alloc(8 + Math.ceil(value.length / 8) * 8 + 8)
  extension.writeUInt32BE(type)
  extension.writeUInt32BE(value.length, 4)
  value.copy(extension, 8)
  const nameAt = at + extension.length
  if (nameAt + text.length > bytes.length) return bytes
  extension.copy(bytes, at)
  if (step.role === 'data') {
    // Incompatible feature bit 2.
    bytes[79] |= 4
  } else {
    text.copy(bytes, nameAt)
    bytes.writeBigUInt64BE(BigInt(nameAt), 8)
    bytes.writeUInt32BE(text.length, 16)
  }
  return bytes
}
