import t from 'tap'
import { decodeHeader } from '../../../lib/format/qcow2/header.ts'
import type { Qcow2Header } from '../../../lib/format/qcow2/header-fields.ts'
import { requireActiveTable, requireReadable } from '../../../lib/format/qcow2/validate.ts'

const CLUSTER = 65536

/** A sound version 3 header in a whole cluster, as qemu-img makes it for 1 GiB. */
function sound(): Buffer {
  const head = Buffer.alloc(CLUSTER)
  head.writeUInt32BE(0x514649fb, 0)
  head.writeUInt32BE(3, 4)
  head.writeUInt32BE(16, 20)
  head.writeBigUInt64BE(2n ** 30n, 24)
  head.writeUInt32BE(2, 36)
  head.writeBigUInt64BE(3n * 65536n, 40)
  head.writeBigUInt64BE(65536n, 48)
  head.writeUInt32BE(1, 56)
  head.writeUInt32BE(4, 96)
  head.writeUInt32BE(112, 100)
  return head
}

/** Header extensions, padded, without an end marker. */
function extension(type: number, data: Buffer | string): Buffer {
  const bytes = Buffer.from(data)
  const out = Buffer.alloc(8 + Math.ceil(bytes.length / 8) * 8)
  out.writeUInt32BE(type, 0)
  out.writeUInt32BE(bytes.length, 4)
  bytes.copy(out, 8)
  return out
}

function words(...values: (number | bigint)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(typeof value === 'bigint' ? 8 : 4)
      if (typeof value === 'bigint') bytes.writeBigUInt64BE(value)
      else bytes.writeUInt32BE(value)
      return bytes
    }),
  )
}

function read(head: Buffer): Qcow2Header {
  const header = decodeHeader(head)
  requireReadable(header)
  requireActiveTable(header)
  return header
}

t.test('a sound header is decoded', async (t) => {
  const head = sound()
  const name = Buffer.alloc(48)
  name[1] = 4
  name.write('extended L2', 2)
  Buffer.concat([
    extension(0xe2792aca, 'qcow2'),
    extension(0x12345678, 'unknown'),
    extension(0x6803f857, name),
    extension(0x44415441, 'data.raw'),
  ]).copy(head, 112)
  head.writeBigUInt64BE(0x1000n, 8)
  head.writeUInt32BE(9, 16)
  head.write('base.img', 0x1000)
  head.writeBigUInt64BE(0b10011n, 72)
  head.writeBigUInt64BE(2n ** 30n + 1023n, 24)
  head.writeUInt32BE(9, 36)
  const header = read(head)
  t.match(header, {
    version: 3,
    clusterSize: CLUSTER,
    size: 2 ** 30 + 1023,
    virtualSize: 2 ** 30 + 512,
    l1Size: 9,
    l1TableOffset: 3 * CLUSTER,
    refcountTableOffset: CLUSTER,
    refcountTableClusters: 1,
    refcountOrder: 4,
    headerLength: 112,
    compressionType: 0,
    backingFile: 'base.img',
    extendedL2: true,
    externalDataFile: false,
    dataFileRaw: false,
  })
  t.match(header.extensions, {
    backingFormat: 'qcow2',
    dataFile: 'data.raw',
    featureNames: [{ kind: 0, bit: 4, name: 'extended L2' }],
  })
  t.same(
    header.extensions.all.map((e) => e.type),
    [0xe2792aca, 0x12345678, 0x6803f857, 0x44415441],
    'unknown extensions are kept',
  )
})

t.test('version 2 ends at byte 72 and its extensions start there', async (t) => {
  const head = sound()
  head.fill(0, 72)
  head.writeUInt32BE(2, 4)
  extension(0xe2792aca, 'raw').copy(head, 72)
  const header = read(head)
  t.match(header, { version: 2, refcountOrder: 4, headerLength: 72, compressionType: 0 })
  t.equal(header.incompatibleFeatures, 0n)
  t.equal(header.extensions.backingFormat, 'raw')
})

t.test('headers that QEMU tolerates are decoded', async (t) => {
  const cases: [string, (head: Buffer) => void, (header: Qcow2Header) => boolean][] = [
    ['a header length that is no multiple of 8', (h) => h.writeUInt32BE(108, 100), () => true],
    ['a header without compression type', (h) => h.writeUInt32BE(104, 100), () => true],
    ['unknown compatible bits', (h) => h.writeBigUInt64BE(2n ** 63n, 80), () => true],
    ['unknown autoclear bits', (h) => h.writeBigUInt64BE(2n ** 63n, 88), () => true],
    ['the dirty flag', (h) => h.writeBigUInt64BE(1n, 72), () => true],
    ['the corrupt flag', (h) => h.writeBigUInt64BE(2n, 72), () => true],
    ['bitmaps flag without bitmaps', (h) => h.writeBigUInt64BE(1n, 88), () => true],
    [
      'bitmaps without their flag are not looked at',
      (h) => extension(0x23852875, words(0, 7, 0n, 5n)).copy(h, 112),
      (header) => header.extensions.bitmaps?.reserved === 7,
    ],
    [
      'the later of two extensions wins',
      (h) =>
        Buffer.concat([extension(0xe2792aca, 'raw'), extension(0xe2792aca, 'qcow2')]).copy(h, 112),
      (header) => header.extensions.backingFormat === 'qcow2',
    ],
    [
      'an extension area without an end marker',
      (h) => {
        h.writeBigUInt64BE(128n, 8)
        h.writeUInt32BE(4, 16)
        extension(0xe2792aca, 'raw').copy(h, 112)
        h.write('base', 128)
      },
      (header) => header.backingFile === 'base' && header.extensions.backingFormat === 'raw',
    ],
    [
      'a backing name of no length is none',
      (h) => h.writeBigUInt64BE(512n, 8),
      (header) => header.backingFile === undefined,
    ],
  ]
  for (const [name, change, holds] of cases) {
    const head = sound()
    change(head)
    t.ok(holds(read(head)), name)
  }
})

t.test('malformed headers are refused', async (t) => {
  const cases: [string, 'BAD_IMAGE' | 'UNSUPPORTED', (head: Buffer) => unknown][] = [
    ['image is not in qcow2 format', 'BAD_IMAGE', (h) => h.writeUInt32BE(0x514649fa, 0)],
    ['unsupported qcow2 version 1', 'UNSUPPORTED', (h) => h.writeUInt32BE(1, 4)],
    ['unsupported qcow2 version 4', 'UNSUPPORTED', (h) => h.writeUInt32BE(4, 4)],
    ['unsupported cluster size 2^8', 'BAD_IMAGE', (h) => h.writeUInt32BE(8, 20)],
    ['unsupported cluster size 2^22', 'BAD_IMAGE', (h) => h.writeUInt32BE(22, 20)],
    [
      "the header's length of 103 bytes is too short",
      'BAD_IMAGE',
      (h) => h.writeUInt32BE(103, 100),
    ],
    [
      "the header's length of 65537 bytes exceeds the cluster size",
      'BAD_IMAGE',
      (h) => h.writeUInt32BE(65537, 100),
    ],
    ['invalid backing file offset', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(65537n, 8)],
    ['invalid backing file offset', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(2n ** 64n - 1n, 8)],
    [
      'a header extension is too large',
      'BAD_IMAGE',
      (h) => words(0x12345678, CLUSTER - 112 - 8 + 1).copy(h, 112),
    ],
    [
      'a header extension is too large',
      'BAD_IMAGE',
      (h) => words(0x12345678, 0xffffffff).copy(h, 112),
    ],
    [
      'more than 1024 header extensions',
      'BAD_IMAGE',
      (h) => Buffer.alloc(1025 * 8, '0000000100000000', 'hex').copy(h, 112),
    ],
    [
      'the backing format is 16 bytes long, more than 15',
      'BAD_IMAGE',
      (h) => extension(0xe2792aca, 'x'.repeat(16)).copy(h, 112),
    ],
    [
      'the backing file name of 1024 bytes is too long',
      'BAD_IMAGE',
      (h) => words(0x1000n, 1024).copy(h, 8),
    ],
    [
      'the backing file name of 17 bytes is too long',
      'BAD_IMAGE',
      (h) => words(BigInt(CLUSTER - 16), 17).copy(h, 8),
    ],
    [
      'unsupported qcow2 features: incompatible feature bit 5, incompatible feature bit 63',
      'UNSUPPORTED',
      (h) => h.writeBigUInt64BE(2n ** 63n + 32n, 72),
    ],
    [
      "unsupported qcow2 features: 'holo\\x0agram'",
      'UNSUPPORTED',
      (h) => {
        h.writeBigUInt64BE(32n, 72)
        const name = Buffer.alloc(48)
        name[1] = 5
        name.write('holo\ngram', 2)
        extension(0x6803f857, name).copy(h, 112)
      },
    ],
    [
      'compression type 1: its incompatible feature bit must be set',
      'BAD_IMAGE',
      (h) => h.writeUInt8(1, 104),
    ],
    [
      'compression type 0: its incompatible feature bit must not be set',
      'BAD_IMAGE',
      (h) => h.writeBigUInt64BE(8n, 72),
    ],
    [
      'unknown compression type 2',
      'UNSUPPORTED',
      (h) => {
        h.writeBigUInt64BE(8n, 72)
        h.writeUInt8(2, 104)
      },
    ],
    [
      'unsupported subcluster size 256',
      'BAD_IMAGE',
      (h) => {
        h.writeUInt32BE(13, 20)
        h.writeBigUInt64BE(16n, 72)
      },
    ],
    ['refcount entries are wider than 64 bits', 'BAD_IMAGE', (h) => h.writeUInt32BE(7, 96)],
    ['unsupported encryption method 3', 'UNSUPPORTED', (h) => h.writeUInt32BE(3, 32)],
    ['encrypted with AES', 'UNSUPPORTED', (h) => h.writeUInt32BE(1, 32)],
    [
      'encrypted with LUKS, but the LUKS header is not recorded',
      'BAD_IMAGE',
      (h) => h.writeUInt32BE(2, 32),
    ],
    [
      'encrypted with LUKS',
      'UNSUPPORTED',
      (h) => {
        h.writeUInt32BE(2, 32)
        extension(0x0537be77, words(0x10000n, 0x1000n)).copy(h, 112)
      },
    ],
    [
      'the LUKS header is not at the start of a cluster',
      'BAD_IMAGE',
      (h) => {
        h.writeUInt32BE(2, 32)
        extension(0x0537be77, words(0x10200n, 0x1000n)).copy(h, 112)
      },
    ],
    [
      'has a LUKS header, but is not encrypted with LUKS',
      'BAD_IMAGE',
      (h) => extension(0x0537be77, words(0x10000n, 0x1000n)).copy(h, 112),
    ],
    [
      'the encryption extension is 8 bytes long, not 16',
      'BAD_IMAGE',
      (h) => {
        h.writeUInt32BE(2, 32)
        extension(0x0537be77, words(0x10000n)).copy(h, 112)
      },
    ],
    ['image is too big', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(2n ** 63n, 24)],
    [
      'image is too big',
      'BAD_IMAGE',
      (h) => {
        h.writeUInt32BE(9, 20)
        h.writeBigUInt64BE(2n ** 53n - 1n, 24)
      },
    ],
    ['image has no refcount table', 'BAD_IMAGE', (h) => h.writeUInt32BE(0, 56)],
    ['refcount table too large', 'BAD_IMAGE', (h) => h.writeUInt32BE(129, 56)],
    ['refcount table offset invalid', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(65537n, 48)],
    [
      'refcount table offset invalid',
      'BAD_IMAGE',
      (h) => h.writeBigUInt64BE(2n ** 63n - 65536n, 48),
    ],
    ['snapshot table too large', 'BAD_IMAGE', (h) => h.writeUInt32BE(65537, 60)],
    ['snapshot table offset invalid', 'BAD_IMAGE', (h) => words(1, 65535n).copy(h, 60)],
    ['active L1 table too large', 'BAD_IMAGE', (h) => h.writeUInt32BE(4194305, 36)],
    ['active L1 table offset invalid', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(65024n, 40)],
    ['active L1 table lies over the header', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(0n, 40)],
    ['L1 table is too small', 'BAD_IMAGE', (h) => h.writeUInt32BE(1, 36)],
    [
      'its data is in another file, but the name of that is not recorded',
      'BAD_IMAGE',
      (h) => h.writeBigUInt64BE(4n, 72),
    ],
    ['data-file-raw requires a data file', 'BAD_IMAGE', (h) => h.writeBigUInt64BE(2n, 88)],
    ...(
      [
        ['the bitmaps extension is 16 bytes long, not 24', words(1, 0, 24n)],
        ['bitmaps extension: reserved field is not zero', words(1, 1, 24n, 65536n)],
        ['bitmaps extension with zero bitmaps', words(0, 0, 24n, 65536n)],
        ['65536 bitmaps are too many', words(65536, 0, 24n, 65536n)],
        ['bitmap directory offset invalid', words(1, 0, 24n, 65537n)],
        ['bitmap directory too large', words(1, 0, 1024n * 65535n + 1n, 65536n)],
      ] as const
    ).map(
      ([why, data]) =>
        [
          why,
          'BAD_IMAGE',
          (h: Buffer) => {
            h.writeBigUInt64BE(1n, 88)
            extension(0x23852875, data).copy(h, 112)
          },
        ] as [string, 'BAD_IMAGE', (h: Buffer) => void],
    ),
  ]
  for (const [why, code, change] of cases) {
    const head = sound()
    change(head)
    t.throws(() => read(head), { name: 'FormatError', code, message: why }, why)
  }
})

t.test('what a file lacks of its header is zero', async (t) => {
  const cases: [number, string][] = [
    [3, 'image is not in qcow2 format'],
    [4, 'unsupported qcow2 version 0'],
    [20, 'unsupported cluster size 2^0'],
    [100, "the header's length of 0 bytes is too short"],
  ]
  for (const [length, why] of cases) {
    t.throws(() => read(sound().subarray(0, length)), { message: why })
  }
  t.equal(read(sound().subarray(0, 104)).version, 3)
})
