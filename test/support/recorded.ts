/** Repositories of records: points of any number, whose images are only names. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DiskRecord, PointRecord } from '../../lib/index.ts'
import { machineDirectory } from '../../lib/repository/names.ts'
import { seeded } from './random.ts'

/** Points of a machine, one after the other. */
export interface History {
  machine: string
  points: number
  /** Milliseconds since 1970, and between two. */
  first: number
  interval: number
  disks?: readonly string[]
  /** Every so many the images are full. */
  fullEvery?: number
  /** Sizes differ by it. */
  seed?: number
}

const CONTENT = { algorithm: 'blake2b-256', blockSize: 4194304, checksum: '00' } as const

/** The records of a history, oldest first. */
export function recordsOf(history: History): PointRecord[] {
  const { machine, points, first, interval, disks = ['vda'], fullEvery = 0, seed = 1 } = history
  const random = seeded(seed)
  let last: PointRecord | undefined
  return Array.from({ length: points }, (_, i) => {
    const time = new Date(first + i * interval).toISOString()
    const point = `${time.slice(0, 19).replace(/[-:]/g, '')}Z`
    const isFull = fullEvery > 0 ? i % fullEvery === 0 : i === 0
    const before = isFull ? undefined : last
    const parent = before && { parent: before.point, parentId: before.id }
    const made = disks.map((name): DiskRecord => {
      const bytes = Math.round((isFull ? 8e9 : 2e7 + 3e8 * random() ** 3) / 65536) * 65536
      return {
        name,
        image: `${name}.${point}.qcow2`,
        kind: isFull ? 'full' : 'incremental',
        virtualSize: 2 ** 35,
        ...parent,
        ...{ dataBytes: bytes, zeroBytes: 2 ** 35 - bytes, unchangedBytes: 0 },
        ...{ fileSize: bytes, allocatedBytes: bytes, modified: time, content: { ...CONTENT } },
      }
    })
    const id = `${machine.length}-${i}`
    last = { version: 1, machine, point, id, ...parent, time, disks: made, versions: {} }
    return last
  })
}

/** Makes a repository of records, whose images are empty files. */
export function writeRecords(repository: string, records: readonly PointRecord[]): void {
  mkdirSync(repository, { recursive: true })
  writeFileSync(join(repository, 'repository.json'), '{"format":1}')
  for (const record of records) {
    const folder = join(repository, machineDirectory(record.machine))
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `${record.point}.json`), JSON.stringify(record))
    for (const { image } of record.disks) writeFileSync(join(folder, image), '')
  }
}
