import { dirname, join } from 'node:path'
import { formatSize } from '../../../lib/units.ts'
import { addBitmap, change } from '../changed-disks.ts'
import { mixedContent } from '../content.ts'
import { WRITE_IN_ORDER } from '../granules.ts'
import { scatteredLayout } from '../layout.ts'
import { wallRatio } from '../limits.ts'
import { succeed } from '../process.ts'
import { convert, type Image, requireSame } from '../verify.ts'
import type { PerfCase, Plan, Setup } from './case.ts'
import { describe } from './full.ts'
import { incremental } from './incremental.ts'

const ROUNDS = 4

export const restoreChain: PerfCase = {
  name: 'restore-chain',
  title: `Restore of our full backup with ${ROUNDS} incremental ones to a raw file`,
  prepare: planRestore,
}

async function planRestore(setup: Setup): Promise<Plan> {
  const { ours, data, signal } = setup
  const { mixed, round } = data.disks
  const { disk, backups } = await makeChain(setup)
  const top: Image = { path: backups.at(-1)!, format: 'qcow2' }
  return {
    disk: `${describe(mixed)}; ${ROUNDS} times ${round.blocks} scattered changes of ${formatSize(round.blockSize)}`,
    sources: backups,
    format: 'raw',
    ours: (target) => [...ours, 'restore', top.path, target, '--json', '--no-progress'],
    peer: (target) => convert(top, { path: target, format: 'raw' }),
    verify: (target) => requireSame(disk, { path: target, format: 'raw' }, signal),
    limits: [wallRatio(1)],
  }
}

/**
 * Made anew each time: the backup restored is written by the current program. The disk is an overlay
 * over the mixed one.
 */
async function makeChain(setup: Setup): Promise<{ disk: Image; backups: string[] }> {
  const { ours, data, scratch, signal } = setup
  const raw = await data.mixedRaw()
  const disk = join(scratch, 'disk.qcow2')
  await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', raw, disk], signal)
  const backups = [join(scratch, 'full.qcow2')]
  await succeed([...ours, 'full', raw, backups[0], '--json', '--no-progress'], signal)
  const content = mixedContent()
  for (let round = 1; round <= ROUNDS; round++) {
    const bitmap = `round${round}`
    await addBitmap(disk, bitmap, signal)
    const granules = scatteredLayout(data.disks.round, 10 + round)
    await change(disk, granules, WRITE_IN_ORDER, setup, content)
    const next = join(scratch, `${bitmap}.qcow2`)
    const command = incremental(setup, disk, next, bitmap, backups.at(-1)!)
    await succeed([...command, '--allow-path', dirname(raw)], signal)
    backups.push(next)
  }
  return { disk: { path: disk, format: 'qcow2' }, backups }
}
