/** What is remembered of verifying: by which programs at once, and what of it a point is told to be. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Lineage } from '../../lib/repository/lineage.ts'
import { MachineFolder } from '../../lib/repository/machine-folder.ts'
import type { DiskRecord, PointRecord } from '../../lib/repository/record.ts'
import {
  readVerified,
  rememberVerified,
  type VerifiedImage,
  verifiedPoints,
} from '../../lib/repository/verified.ts'

const outcome = (day: number, same = true, checksum = 'c'): VerifiedImage => ({
  time: `2026-11-${String(day).padStart(2, '0')}T00:00:00.000Z`,
  same,
  checksum,
})

/** Points by their names, each with disks by their names and the points on which these build. */
function pointsOf(all: Record<string, Record<string, string | undefined>>): PointRecord[] {
  return Object.entries(all).map(([point, disks]) => ({
    version: 1,
    machine: 'web',
    point,
    id: `id of ${point}`,
    time: '2026-11-29T11:52:00.000Z',
    disks: Object.entries(disks).map(
      ([name, parent]) =>
        ({
          name,
          image: `${name}.${point}.qcow2`,
          ...(parent !== undefined && { parent, parentId: `id of ${parent}` }),
          content: { algorithm: 'blake2b-256', blockSize: 2 ** 22, checksum: 'c' },
        }) as DiskRecord,
    ),
    versions: {},
  }))
}

t.test('many that remember at once lose nothing', async (t) => {
  const images = Array.from({ length: 5 }, (_, i) => `vda.p${i}.qcow2`)
  const folder = new MachineFolder('web', t.testdir(Object.fromEntries(images.map((i) => [i, '']))))
  const path = join(folder.directory, '.verified.json')
  for (const before of [undefined, '{"version":1,"images":{"gone.p.qcow2":{}}}', 'no JSON']) {
    if (before !== undefined) writeFileSync(path, before)
    await Promise.all(images.map((i) => rememberVerified(folder, new Map([[i, outcome(3)]]))))
    t.strictSame([...(await readVerified(folder)).keys()].sort(), [...images].sort())
  }
  await rememberVerified(folder, new Map([[images[0], outcome(2, false)]]))
  t.strictSame((await readVerified(folder)).get(images[0]), outcome(3), 'the later one stays')
  await rememberVerified(folder, new Map([['gone.p.qcow2', outcome(4)]]))
  t.notOk((await readVerified(folder)).has('gone.p.qcow2'), 'no image, nothing to remember')
  t.strictSame(readdirSync(folder.directory).sort(), ['.verified.json', ...images].sort())
})

t.test('what a newer version wrote stays, and is not understood', async (t) => {
  const text = '{"version":2,"images":{}}'
  const folder = new MachineFolder('web', t.testdir({ '.verified.json': text }))
  await t.rejects(rememberVerified(folder, new Map()), { code: 'UNSUPPORTED' })
  t.equal(readFileSync(join(folder.directory, '.verified.json'), 'utf8'), text)
  t.equal((await readVerified(folder)).size, 0)
})

t.test('a point is as its images and all below them are', async (t) => {
  const points = pointsOf({
    p2: { a: 'p1', b: undefined },
    p1: { a: 'p0' },
    p0: { a: undefined },
    q1: { a: 'q0' },
    q0: { a: 'q1' },
    r1: { a: 'r0' },
    none: {},
  })
  const told = (images: Record<string, VerifiedImage>) =>
    Object.fromEntries(verifiedPoints(new Lineage(points), new Map(Object.entries(images))))
  const { checksum: _, ...good } = outcome(1)
  const all = {
    'a.p0.qcow2': outcome(2),
    'a.p1.qcow2': outcome(1),
    'a.p2.qcow2': outcome(3),
    'b.p2.qcow2': outcome(4),
    'a.q0.qcow2': outcome(1),
    'a.q1.qcow2': outcome(1),
    'a.r1.qcow2': outcome(1),
  }
  t.strictSame(told(all), { p0: { ...good, time: outcome(2).time }, p1: good, p2: good })
  const { 'b.p2.qcow2': _b, ...without } = all
  t.strictSame(Object.keys(told(without)), ['p0', 'p1'], 'one image of p2 was never read')
  const other = { ...all, 'a.p0.qcow2': outcome(2, true, 'of other content') }
  t.strictSame(told(other), {}, 'the image was replaced since')
  const bad = { time: outcome(5).time, same: false }
  t.strictSame(told({ ...all, 'a.p0.qcow2': outcome(5, false) }), { p0: bad, p1: bad, p2: bad })
  t.strictSame(told({ 'a.p1.qcow2': outcome(5, false) }), { p1: bad, p2: bad })
})
