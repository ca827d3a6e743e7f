import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { formatSize } from '../../../lib/units.ts'
import { change } from '../changed-disks.ts'
import { mixedContent } from '../content.ts'
import { WRITE_IN_ORDER } from '../granules.ts'
import { scatteredLayout } from '../layout.ts'
import { wallRatio } from '../limits.ts'
import { succeed } from '../process.ts'
import { seeded, shuffle } from '../random.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'

const MACHINE = 'joined'

export const pruneJoin: PerfCase = {
  name: 'prune-join',
  title: 'Removing a full backup, which becomes part of the incremental one over it',
  prepare: planJoin,
}

/** The peer makes the same image, and compares nothing of what it reads with a hash. */
async function planJoin(setup: Setup): Promise<Plan> {
  const { ours, data, scratch, signal } = setup
  const { joined } = data.disks
  const { disk, repository } = await makeRepository(setup)
  const image = (place: string, point: string): Image => {
    return { path: join(place, MACHINE, `vda.${point}.qcow2`), format: 'qcow2' }
  }
  const now = join(scratch, 'now')
  return {
    disk: `${formatSize(joined.size)} of data; over it ${joined.blocks} scattered changes of ${formatSize(joined.blockSize)}`,
    sources: [image(repository, 'p0').path, image(repository, 'p1').path],
    format: 'raw',
    async before() {
      await rm(now, { recursive: true, force: true })
      // Images are replaced, never written to.
      await succeed(['cp', '-al', repository, now], signal)
    },
    ours: () => [...ours, 'prune', '--repo', now, '--keep-last', '1', '--json', '--no-progress'],
    peer: (target) => convert(image(now, 'p1'), { path: target, format: 'qcow2' }),
    verify: () => requireSame(disk, image(now, 'p1'), signal),
    limits: [wallRatio(1)],
  }
}

/** A full backup of a disk, and an incremental one. */
async function makeRepository(setup: Setup): Promise<{ disk: Image; repository: string }> {
  const { ours, data, scratch, signal } = setup
  const raw = await data.wholeRaw()
  const disk = join(scratch, 'disk.qcow2')
  await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', raw, disk], signal)
  const repository = join(scratch, 'repository')
  const backUp = async (point: string) => {
    const where = ['--name', MACHINE, '--repo', repository, '--checkpoint', point]
    const how = ['--allow-path', '/', '--no-progress']
    await succeed([...ours, 'backup', `disk:vda=${disk}`, ...where, ...how], signal)
  }
  await backUp('p0')
  const granules = shuffle(scatteredLayout(data.disks.joined, 34), seeded(35))
  await change(disk, granules, WRITE_IN_ORDER, setup, mixedContent())
  await backUp('p1')
  return { disk: { path: disk, format: 'qcow2' }, repository }
}
