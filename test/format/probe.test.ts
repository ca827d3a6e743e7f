import t from 'tap'
import { PROBE_BYTES, type ProbedFormat, probe, probeAsQemu } from '../../lib/format/probe.ts'

/** A file of 64 KiB with some bytes at an offset; a negative one counts from its end. */
function file(bytes: string, at = 0): Buffer {
  const content = Buffer.alloc(65536)
  content.write(bytes, at < 0 ? content.length + at : at, 'latin1')
  return content
}

function probed(content: Buffer): ProbedFormat {
  return probe(content.subarray(0, PROBE_BYTES), content.subarray(-PROBE_BYTES))
}

t.test('qcow2 is recognised by its magic', async (t) => {
  t.equal(probed(Buffer.from('514649fb', 'hex')), 'qcow2')
  t.equal(probed(Buffer.from('514649fb00000003', 'hex')), 'qcow2')
  t.equal(probed(Buffer.from('514649fa00000003', 'hex')), 'raw')
  t.equal(probed(Buffer.from('514649', 'hex')), 'raw', 'a file shorter than the magic')
  t.same(probed(file('QFI\xfb\0\0\0\x01')), { name: 'a qcow image of version 1', driver: 'qcow' })
})

t.test('raw is what nothing else is, with what is said of it', async (t) => {
  t.equal(probed(Buffer.alloc(0)), 'empty')
  t.equal(probed(Buffer.alloc(1)), 'raw')
  t.equal(probed(Buffer.alloc(512)), 'raw')
  t.equal(probed(file('\x55\xaa', 510)), 'raw', 'a partition table')
  t.equal(probed(file('LUKS\xba\xbe\0\x01')), 'luks')
  t.equal(probed(file('LUKS\xba\xbe\0\x02')), 'luks')
  t.equal(probed(file('conectix', 4096)), 'raw', 'a magic in the middle')
})

t.test('formats that are not read, wherever their magic stands', async (t) => {
  const cases: [name: RegExp, bytes: string, at?: number][] = [
    [/VMDK/, 'KDMV'],
    [/VMDK/, 'COWD'],
    [/VMDK/, '# Disk DescriptorFile\nversion=1\n'],
    [/VMDK/, '# a\n  \r\nversion=3\r\n'],
    [/VMDK/, '\xbe\xba\xfe\xca\0\0\0\0'],
    [/VDI/, '\x7f\x10\xda\xbe', 64],
    [/VHDX/, 'vhdxfile'],
    [/VHD /, 'conectix'],
    [/VHD /, 'conectix', -512],
    [/VHD /, 'conectix', -511],
    [/QED/, 'QED\0'],
    [/Parallels/, 'WithoutFreeSpace'],
    [/Parallels/, 'WithouFreSpacExt'],
    [
      /cloop/,
      '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n',
    ],
    [/DMG/, 'koly', -512],
    [/gzip/, '\x1f\x8b\x08'],
    [/xz/, '\xfd7zXZ\0'],
    [/bzip2/, 'BZh91AY&SY'],
    [/zstd/, '\x28\xb5\x2f\xfd'],
    [/lz4/, '\x04\x22\x4d\x18'],
    [/ZIP/, 'PK\x03\x04'],
    [/tar/, 'ustar', 257],
    [/VMA/, 'VMA\0'],
  ]
  for (const [name, bytes, at] of cases) {
    const found = probed(file(bytes, at))
    t.match(typeof found === 'string' ? found : found.name, name, JSON.stringify(bytes))
  }
  const bochs = file('Bochs Virtual HD Image')
  bochs.write('Redolog', 32)
  bochs.write('Growing', 48)
  t.match(probed(bochs), { driver: 'bochs' })
})

t.test('QEMU takes less into account', async (t) => {
  const cases: [format: string, content: Buffer, name?: string][] = [
    ['qcow2', file('QFI\xfb\0\0\0\x03')],
    ['qcow', file('QFI\xfb\0\0\0\x01')],
    ['raw', file('QFI\xfb\0\0\0\0')],
    ['vmdk', file('KDMV')],
    ['vmdk', file('# Disk DescriptorFile\nversion=1\n')],
    ['vmdk', file('# a\n  \r\nversion=3\r\n')],
    ['raw', file('# a\n\nversion=1\n')],
    ['raw', file('version=4\n')],
    ['vpc', file('conectix')],
    ['raw', file('conectix', -512)],
    ['luks', file('LUKS\xba\xbe\0\x01')],
    ['raw', file('LUKS\xba\xbe\0\x02')],
    ['raw', file('\x1f\x8b\x08')],
    ['raw', file('koly', -512)],
    ['dmg', file(''), 'x.dmg'],
  ]
  for (const [format, content, name = 'x'] of cases) {
    const head = content.subarray(0, PROBE_BYTES)
    t.equal(probeAsQemu(head, name), format, JSON.stringify(head.toString('latin1', 0, 24)))
  }
})
