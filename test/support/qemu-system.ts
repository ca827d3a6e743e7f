/** A virtual machine without an operating system: disks behind devices, to which QEMU itself writes. */
import { join } from 'node:path'
import type { Test } from 'tap'
import { QmpClient } from '../../lib/qmp/client.ts'
import { type RunningServer, socketDirectory, startServer } from './server.ts'

/** A machine that runs. */
export interface QemuSystem extends RunningServer {
  /** Path of a monitor for the program that is tested. */
  readonly monitor: string
  /** Runs a QMP command; throws with its description if it fails. */
  qmp(command: string, args?: Record<string, unknown>): Promise<unknown>
  readonly client: QmpClient
  /** Runs a command of qemu-io on a device, by its id or its drive's, as if the guest did. */
  io(name: string, command: string): Promise<void>
  /** `running`, `paused` … */
  status(): Promise<string>
}

/** Starts a machine. @param args with its disks: `-blockdev` and `-device` */
export async function startQemuSystem(t: Test, args: readonly string[]): Promise<QemuSystem> {
  const directory = socketDirectory(t)
  const [own, monitor] = ['own', 'qmp'].map((name) => join(directory, name))
  const server = await startServer(
    t,
    'qemu-system-x86_64',
    [
      ...['-machine', 'q35', '-accel', 'tcg', '-m', '32', '-nodefaults', '-no-user-config'],
      ...['-display', 'none', '-vga', 'none'],
      ...[own, monitor].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]),
      ...args,
    ],
    // When the second socket is there, the first one listens.
    monitor,
  )
  const client = await QmpClient.connect(own)
  t.teardown(() => client.close())
  const qmp: QemuSystem['qmp'] = (command, options) => client.execute(command, options)
  return {
    ...server,
    monitor,
    client,
    qmp,
    async io(name, command) {
      const devices = (await qmp('query-block')) as { device: string; qdev?: string }[]
      const found = devices.find(({ device, qdev }) => {
        return device === name || qdev?.split('/').includes(name)
      })
      const where = found?.device === name ? name : `-d ${found?.qdev}`
      const line = `qemu-io ${where} "${command}"`
      const told = String(await qmp('human-monitor-command', { 'command-line': line }))
      // What qemu-io prints itself goes to QEMU's stdout.
      if (told !== '') throw new Error(`${command}: ${told}`)
    },
    async status() {
      return ((await qmp('query-status')) as { status: string }).status
    },
  }
}

/** Arguments for a disk: a node and a device of the same id with `dev-` before it. */
export function diskArguments(
  node: string,
  path: string,
  { format = 'qcow2', device = 'virtio-blk-pci' }: { format?: string; device?: string } = {},
): string[] {
  const file = { driver: 'file', filename: path, discard: 'unmap' }
  const blockdev = { driver: format, 'node-name': node, discard: 'unmap', file }
  return [
    ...['-blockdev', JSON.stringify(blockdev)],
    ...['-device', `${device},drive=${node},id=dev-${node}`],
  ]
}
