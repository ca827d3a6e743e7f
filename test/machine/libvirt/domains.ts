/** Domains with disks that are written to, and what is expected of their points in time. */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { fullBackup, incrementalBackup } from '../../../lib/index.ts'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'
import type {
  FreezeDisk,
  FreezeOptions,
  FrozenDisk,
  Machine,
  MachineOptions,
  PointInTime,
} from '../../../lib/machine/machine.ts'
import type { Libvirtd, TestDisk, TestDomain } from '../../support/libvirtd.ts'
import { qemuImg } from '../../support/qemu.ts'

export const MIB = 2 ** 20

/** An id as a backup makes it. */
export function newRun(): string {
  return randomBytes(6).toString('hex')
}

/** A running domain with a disk in qcow2 over another, one in raw. */
export async function setUp(
  t: Test,
  libvirtd: Libvirtd,
  name: string,
  options: MachineOptions = {},
): Promise<{ domain: TestDomain; disks: TestDisk[]; machine: Machine; dir: string }> {
  const dir = t.testdir()
  const at = (file: string) => join(libvirtd.directory, `${name}-${file}`)
  qemuImg('create', '-q', '-f', 'qcow2', at('base.qcow2'), '64M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', at('base.qcow2'), '-F', 'qcow2', at('a.qcow2'))
  qemuImg('create', '-q', '-f', 'raw', at('b.raw'), '32M')
  libvirtd.give(at('base.qcow2'))
  const disks: TestDisk[] = [
    { dev: 'vda', path: at('a.qcow2'), format: 'qcow2' },
    { dev: 'vdb', path: at('b.raw'), format: 'raw' },
  ]
  const domain = await libvirtd.define(name, disks)
  await domain.virsh('start')
  await domain.io('vda', 'write -P 1 0 8M', 'write -P 2 40M 1M')
  await domain.io('vdb', 'write -P 3 1M 4M')
  const machine = await openLibvirtMachine(name, { connect: libvirtd.connect, ...options })
  t.teardown(() => machine.close())
  return { domain, disks, machine, dir }
}

export async function back(
  disk: FrozenDisk,
  target: string,
  backing?: string,
): Promise<{ dataBytes: number; target: string }> {
  return backing === undefined
    ? await fullBackup(disk.source, target, disk.open)
    : await incrementalBackup(disk.source, target, { ...disk.open, backing })
}

export function sameContent(t: Test, backup: string, reference: string): void {
  qemuImg('compare', '-f', 'qcow2', '-F', 'raw', backup, reference)
  t.pass(`${backup} is equal to the point in time`)
}

/** That nothing of any run is left but some checkpoints. */
export async function nothingLeft(
  t: Test,
  domain: TestDomain,
  machine: Machine,
  checkpoints: string[],
  pid = process.pid,
): Promise<void> {
  const isActive = !/shut off/.test(await domain.virsh('domstate'))
  if (isActive) t.match(await domain.virsh('domjobinfo'), /Job type:\s+None/)
  const names = (await domain.virsh('checkpoint-list', '--name')).split('\n').filter(Boolean)
  t.strictSame(names.sort(), checkpoints.sort())
  t.strictSame(await machine.leftovers(), [])
  t.strictSame(
    readdirSync('/var/tmp').filter((name) => name.includes(`.${pid}.`)),
    [],
  )
}

export function freeze(
  machine: Machine,
  point: string,
  disks: readonly FreezeDisk[],
  more: Partial<FreezeOptions> = {},
): Promise<PointInTime> {
  return machine.freeze({ disks, run: newRun(), point, ...more })
}

/** Waits for it. */
export async function lost(point: PointInTime): Promise<AbortSignal> {
  if (!point.lost.aborted) {
    await new Promise((resolve) => point.lost.addEventListener('abort', resolve, { once: true }))
  }
  return point.lost
}

/** Waits for it. */
export async function stateIs(domain: TestDomain, wanted: RegExp): Promise<void> {
  while (!wanted.test(await domain.virsh('domstate'))) {}
}
