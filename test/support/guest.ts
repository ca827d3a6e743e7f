/**
 * A virtual machine with a small real Linux, for tests: the kernel and initramfs that `scripts/test-guest`
 * makes, under software emulation. Its disks are found at /dev/disk/NODE.
 */
import { existsSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join, resolve } from 'node:path'
import type { Test } from 'tap'
import { QmpClient } from '../../lib/qmp/client.ts'
import { socketDirectory, startServer } from './server.ts'

/** Where `scripts/setup` has the guest made. */
const FOLDER = resolve(import.meta.dirname, '../../../.guest')

/** Paths of what a guest boots. */
export function guestSystem(): { kernel: string; initrd: string } {
  const [kernel, initrd] = ['vmlinuz', 'initrd.img'].map((name) => join(FOLDER, name))
  if (!existsSync(initrd)) throw new Error(`${initrd} is missing; run scripts/test-guest .guest`)
  return { kernel, initrd }
}

/** The agent that runs in the guest; it runs here too. */
export const GUEST_AGENT = join(FOLDER, 'root/usr/sbin/qemu-ga')

/** A line may be as long as the guest's terminal takes in. */
const MAX_COMMAND = 4000

/** A disk of a guest. */
export interface GuestDisk {
  /** Of the node, of the device, and of the disk in the guest. */
  node: string
  path: string
  /** Default: qcow2. */
  format?: 'raw' | 'qcow2'
  /** Default: virtio-blk. */
  bus?: 'blk' | 'scsi'
  /** QEMU's detect-zeroes. */
  detectZeroes?: 'on' | 'unmap'
}

export interface GuestOptions {
  disks: readonly GuestDisk[]
  /** Default: the installed qemu-system-x86_64. */
  qemu?: string
  /** More arguments for QEMU. */
  args?: readonly string[]
}

/** A guest that has booted. */
export interface Guest {
  /** A monitor for the program that is tested; one client at a time. */
  readonly monitor: string
  /** The guest agent's socket. It answers once `startAgent` has been called. */
  readonly agent: string
  /** A monitor for the test. */
  readonly qmp: QmpClient
  readonly pid: number
  /**
   * Runs a line of shell in the guest and returns what it prints.
   * @throws Error if its status is not 0, or QEMU ends
   */
  run(command: string): Promise<string>
  startAgent(): Promise<void>
  /** Restarts the guest, not QEMU, without shutting down; nothing is mounted then. */
  reboot(): Promise<void>
  /** Has QEMU write back everything and end. */
  stop(): Promise<void>
  /** Ends QEMU by SIGKILL. */
  kill(): Promise<void>
}

/** What a guest does at its console. */
export type GuestShell = Pick<Guest, 'run' | 'startAgent' | 'reboot'> & {
  /** Waits until it has booted. */
  ready(): Promise<void>
}

/**
 * Talks to a guest at its console.
 * @param ended rejects when it is gone
 */
export function shellOf(terminal: Terminal, ended: Promise<never>): GuestShell {
  const waitFor = async (line: RegExp) => await Promise.race([terminal.next(line), ended])
  let number = 0
  let last: Promise<unknown> = Promise.resolve()
  const runNow = async (command: string) => {
    const id = ++number
    terminal.write(`${id} ${command}\n`)
    const { before, match } = await waitFor(new RegExp(`^@@END ${id} (\\d+)`))
    if (match[1] === '0') return before
    throw new Error(`in the guest, ${command} ended with ${match[1]}: ${before}`)
  }
  const run: Guest['run'] = async (command) => {
    if (/\n/.test(command) || Buffer.byteLength(command) > MAX_COMMAND) {
      throw new Error(`not a line for the guest: ${command}`)
    }
    const result = last.then(() => runNow(command))
    last = result.catch(() => undefined)
    return await result
  }
  const ready = async () => {
    await waitFor(/^@@READY/)
  }
  return {
    ready,
    run,
    async startAgent() {
      await run('qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run')
    },
    async reboot() {
      terminal.write(`${++number} reboot -f\n`)
      await ready()
    },
  }
}

/** Starts a guest, and waits until it has booted. It is killed at the end of the test. */
export async function startGuest(
  t: Test,
  { disks, qemu = 'qemu-system-x86_64', args = [] }: GuestOptions,
): Promise<Guest> {
  const { kernel, initrd } = guestSystem()
  const directory = socketDirectory(t)
  const [monitor, own, agent, console, pidFile] = ['qmp', 'own', 'agent', 'console', 'pid'].map(
    (name) => join(directory, name),
  )
  const terminal = await listenTo(t, console)
  const server = await startServer(
    t,
    qemu,
    [
      ...['-accel', 'tcg', '-machine', 'q35', '-cpu', 'max', '-m', '192', '-nodefaults'],
      ...['-no-user-config', '-display', 'none', '-vga', 'none', '-pidfile', pidFile],
      ...['-kernel', kernel, '-initrd', initrd],
      '-append',
      commandLine(disks.length),
      // QEMU connects to us, so that nothing the guest says is lost.
      ...['-chardev', `socket,id=console,path=${console}`, '-serial', 'chardev:console'],
      ...['-device', 'virtio-serial-pci'],
      ...['-chardev', `socket,id=agent,path=${agent},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
      ...[monitor, own].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]),
      ...['-device', 'virtio-scsi-pci,id=scsi-bus'],
      ...disks.flatMap(deviceOf),
      ...args,
    ],
    pidFile,
  )
  const ended = new Promise<never>((_, reject) => {
    const fail = () => reject(new Error(`${qemu} ended: ${server.stderr()}\n${terminal.text()}`))
    server.process.once('exit', fail)
    if (server.process.exitCode !== null) fail()
  })
  ended.catch(() => undefined)
  const shell = shellOf(terminal, ended)
  await shell.ready()
  const qmp = await QmpClient.connect(own)
  t.teardown(() => qmp.close())
  return {
    monitor,
    agent,
    qmp,
    pid: server.process.pid!,
    ...shell,
    async stop() {
      await qmp.execute('quit')
      await qmp.closed()
      await server.stop()
    },
    async kill() {
      await server.stop('SIGKILL')
    },
  }
}

/** The kernel's. */
export function commandLine(disks: number): string {
  return `console=ttyS0 quiet panic=-1 mitigations=off tsc=unstable disks=${disks}`
}

function deviceOf({
  node,
  path,
  format = 'qcow2',
  bus = 'blk',
  detectZeroes,
}: GuestDisk): string[] {
  const file = { driver: 'file', filename: path, discard: 'unmap' }
  const options = { driver: format, 'node-name': node, discard: 'unmap', file }
  const blockdev = { ...options, ...(detectZeroes && { 'detect-zeroes': detectZeroes }) }
  const device = bus === 'scsi' ? 'scsi-hd,bus=scsi-bus.0' : 'virtio-blk-pci'
  return [
    ...['-blockdev', JSON.stringify(blockdev)],
    ...['-device', `${device},drive=${node},id=${node},serial=${node}`],
  ]
}

/** The guest's serial console. */
export interface Terminal {
  write(text: string): void
  /** Takes everything up to a line. */
  next(line: RegExp): Promise<{ before: string; match: RegExpExecArray }>
  /** What was not taken. */
  text(): string
}

export async function listenTo(t: Test, path: string): Promise<Terminal> {
  let held = ''
  let socket: Socket | undefined
  let wake = () => {}
  const server = createServer((accepted) => {
    socket = accepted
    accepted.setEncoding('latin1').on('error', () => {})
    accepted.on('data', (text) => {
      held += text
      wake()
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.teardown(() => {
    socket?.destroy()
    server.close()
  })
  const take = (line: RegExp) => {
    let at = 0
    for (let end = held.indexOf('\n'); end >= 0; end = held.indexOf('\n', at)) {
      const match = line.exec(held.slice(at, end).replace(/\r$/, ''))
      if (match) {
        const before = held.slice(0, at)
        held = held.slice(end + 1)
        return { before, match }
      }
      at = end + 1
    }
    return undefined
  }
  return {
    write: (text) => void socket?.write(text),
    text: () => held,
    async next(line) {
      for (let taken = take(line); ; taken = take(line)) {
        if (taken) return taken
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    },
  }
}
