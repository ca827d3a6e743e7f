import { usageError } from '../errors.ts'
import type { Machine, MachineOptions } from './machine.ts'

/** @param address what follows the kind and its colon */
type Driver = (address: string, options: MachineOptions) => Promise<Machine>

/** The kinds of machines; each one's driver is loaded when it is used. */
const DRIVERS: Readonly<Record<string, () => Promise<Driver>>> = {
  libvirt: async () => (await import('./libvirt/libvirt.ts')).openLibvirtMachine,
  disk: async () => (await import('./disks/disks.ts')).openDisks,
  qmp: async () => (await import('./qmp/open.ts')).openQmpMachine,
}

/**
 * Opens a machine.
 * @param machine `libvirt:DOMAIN`, `qmp:SOCKET` or `disk:NAME=SOURCE[,NAME=SOURCE…]`
 * @throws BackupError USAGE; as the driver
 */
export async function openMachine(machine: string, options: MachineOptions = {}): Promise<Machine> {
  const [, kind, address] = /^([a-z]+):(.*)$/s.exec(machine) ?? []
  if (kind === undefined || !Object.hasOwn(DRIVERS, kind)) {
    const kinds = 'libvirt:DOMAIN, qmp:SOCKET or disk:NAME=SOURCE'
    throw usageError(machine, `is no machine; it is ${kinds}`)
  }
  const open = await DRIVERS[kind]()
  return await open(address, options)
}
