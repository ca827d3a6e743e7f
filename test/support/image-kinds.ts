/** Source images of every kind that can be read, made by QEMU from one content. */
import { join } from 'node:path'
import { makeRaw, noise, type Part, prose } from './disks.ts'
import { qemuImg, qemuIo } from './qemu.ts'

/** An image and the options it is opened with. */
export interface MadeImage {
  path: string
  format: 'raw' | 'qcow2'
}

/** Makes images of one kind. */
export type MakeImage = (directory: string, size: number) => MadeImage

/** Largest disk that is written from end to end, bytes. */
const FULL = 8 * 2 ** 20

const sectors = (bytes: number) => Math.floor(bytes / 512) * 512

/** Noise, text, zeroes that are stored, holes; data at unaligned places and in the last byte. */
function mixed(size: number): Part[] {
  return [
    { at: 0, bytes: noise(200_000, 1) },
    { at: Math.floor(size / 3) + 137, bytes: prose(300_000) },
    { at: Math.floor(size / 2), bytes: Buffer.alloc(150_000) },
    { at: Math.floor(size / 2) + 65_536, bytes: noise(700, 2) },
    { at: Math.max(0, size - 700), bytes: noise(700, 3) },
  ]
}

function raw(path: string, size: number): string {
  return makeRaw(path, size, mixed(size))
}

/**
 * Changes an image by commands of qemu-io, each `[command, offset, length]`; the part beyond the
 * end of the disk is left out.
 */
function change(path: string, size: number, commands: [string, number, number][]): void {
  const fitting = commands.flatMap(([command, from, length]) => {
    const at = sectors(from)
    const bytes = sectors(Math.min(length, size - at))
    return bytes > 0 ? [`${command} ${at} ${bytes}`] : []
  })
  if (fitting.length > 0) qemuIo({ path, format: 'qcow2' }, ...fitting)
}

/** An image converted from the mixed disk and then written to, so that clusters lie out of order. */
function converted(options: string, ...flags: string[]): MakeImage {
  return (directory, size) => {
    const path = join(directory, 'disk.qcow2')
    const from = raw(join(directory, 'content.raw'), size)
    qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...flags, '-o', options, from, path)
    change(path, size, [
      ['write -P 17', size * 0.8, 70_000],
      ['write -P 18', size * 0.1, 3000],
      ['write -z', size * 0.35, 66_000],
      ['discard', size * 0.81, 30_000],
    ])
    return { path, format: 'qcow2' }
  }
}

/** A new image over a backing file, of a size of its own. */
function overlay(path: string, size: number, backing: MadeImage, options: string): void {
  const over = ['-b', backing.path, '-F', backing.format]
  qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...over, path, String(size))
}

export const IMAGE_KINDS = {
  'raw, sparse': (directory, size) => ({
    path: raw(join(directory, 'disk.raw'), size),
    format: 'raw',
  }),
  'raw, written': (directory, size) => {
    const whole = size <= FULL ? [{ at: 0, bytes: Buffer.alloc(size) }] : []
    const path = makeRaw(join(directory, 'disk.raw'), size, [...whole, ...mixed(size)])
    return { path, format: 'raw' }
  },
  'qcow2 version 2': converted('compat=0.10'),
  'qcow2, clusters of 512': converted('cluster_size=512'),
  'qcow2, clusters of 64K': converted('cluster_size=64K'),
  'qcow2, clusters of 2M': converted('cluster_size=2M'),
  'zlib compressed': converted('cluster_size=64K', '-c'),
  'zstd compressed': converted('cluster_size=16K,compression_type=zstd', '-c'),
  'extended L2': converted('cluster_size=128K,extended_l2=on'),
  'preallocated clusters': (directory, size) => {
    const path = join(directory, 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, String(size))
    change(path, size, [
      ['write -P 11', 0, 70_000],
      ['write -P 12', size * 0.4, 5000],
      ['write -z', size * 0.5, 140_000],
      ['write -P 13', Math.max(0, size - 512), 512],
    ])
    return { path, format: 'qcow2' }
  },
  'chain of three, raw base': (directory, size) => {
    const baseSize = sectors(size * 0.7)
    const base = raw(join(directory, 'base.raw'), baseSize)
    const middle = join(directory, 'middle.qcow2')
    const middleSize = size + 2 ** 20
    overlay(middle, middleSize, { path: base, format: 'raw' }, 'cluster_size=16K')
    change(middle, middleSize, [
      ['write -P 21', size * 0.3, 90_000],
      ['write -z', size * 0.2, 20_000],
      ['write -P 22', size * 0.65, size * 0.1 < 2 ** 20 ? size * 0.1 : 2 ** 20],
    ])
    const path = join(directory, 'top.qcow2')
    overlay(path, size, { path: middle, format: 'qcow2' }, 'cluster_size=64K')
    change(path, size, [
      ['write -P 23', size * 0.31, 5000],
      ['write -z -u', size * 0.67, 65_536],
    ])
    return { path, format: 'qcow2' }
  },
  'external data file': (directory, size) => {
    const path = join(directory, 'disk.qcow2')
    const data = join(directory, 'disk.data')
    qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, path, String(size))
    change(path, size, [
      ['write -P 31', 0, 70_000],
      ['write -P 32', size * 0.5, 200_000],
      ['write -z', size * 0.52, 70_000],
    ])
    return { path, format: 'qcow2' }
  },
  'internal snapshots': (directory, size) => {
    const made = converted('cluster_size=32K')(directory, size)
    qemuImg('snapshot', '-c', 'one', made.path)
    change(made.path, size, [
      ['write -P 41', size * 0.01, 100_000],
      ['discard', size * 0.34, 65_536],
    ])
    qemuImg('snapshot', '-c', 'two', made.path)
    change(made.path, size, [['write -P 42', size * 0.02, 9000]])
    return made
  },
  'zero clusters over a backing file': (directory, size) => {
    const backing = converted('cluster_size=64K')(directory, size)
    const path = join(directory, 'top.qcow2')
    overlay(path, size, backing, 'cluster_size=16K')
    change(path, size, [
      ['write -z -u', 0, 16_384],
      ['write -P 51', 32_768, 65_536],
      // A zero flag on a cluster that stays allocated.
      ['write -z', 32_768, 32_768],
      ['write -z -u', size * 0.33, 200_000],
      ['write -P 52', size * 0.34, 10_000],
    ])
    return { path, format: 'qcow2' }
  },
} as const satisfies Record<string, MakeImage>

export type ImageKind = keyof typeof IMAGE_KINDS
