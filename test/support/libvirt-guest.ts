/** The small real Linux of `scripts/test-guest` as a domain of a libvirtd. */
import { chmodSync, copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { commandLine, type GuestShell, guestSystem, listenTo, shellOf } from './guest.ts'
import type { Libvirtd, TestDisk, TestDomain } from './libvirtd.ts'

/**
 * Starts a domain, and waits until it has booted. Its disks are at /dev/disk/TARGET. The agent answers
 * libvirt after `startAgent`.
 */
export async function startLibvirtGuest(
  t: Test,
  libvirtd: Libvirtd,
  name: string,
  disks: readonly TestDisk[],
): Promise<TestDomain & GuestShell> {
  // Where QEMU's user can read.
  const { kernel, initrd } = guestSystem()
  const at = (file: string) => join(libvirtd.directory, file)
  for (const [from, to] of [
    [kernel, at('vmlinuz')],
    [initrd, at('initrd.img')],
  ]) {
    if (existsSync(to)) continue
    copyFileSync(from, to)
    chmodSync(to, 0o644)
  }
  const console = at(`${name}.con`)
  const terminal = await listenTo(t, console)
  chmodSync(console, 0o777)
  const os = `<kernel>${at('vmlinuz')}</kernel><initrd>${at('initrd.img')}</initrd>
    <cmdline>${commandLine(disks.length)}</cmdline>`
  const devices = `<serial type='unix'><source mode='connect' path='${console}'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`
  const domain = await libvirtd.define(name, disks, { os, devices, memory: 192 })
  await domain.virsh('start')
  const shell = shellOf(terminal, new Promise(() => {}))
  await shell.ready()
  return { ...domain, ...shell }
}
