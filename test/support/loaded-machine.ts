import { join } from 'node:path'
import type { Test } from 'tap'
import { makeExt4 } from './file-systems.ts'
import { type Guest, type GuestDisk, startGuest } from './guest.ts'
import { moreLoad, startLoad } from './guest-load.ts'
import { qemuImg } from './qemu.ts'

const SIZE = 48 * 2 ** 20

/** A disk of the machine. Its node is that of the topmost image. */
interface LoadedDisk extends GuestDisk {
  name: string
  /** Topmost first, all but the last made by snapshots. */
  layers: { node: string; path: string }[]
}

interface Node {
  'node-name': string
  image: { 'virtual-size': number }
  'dirty-bitmaps'?: { name?: string }[]
}

/** A guest with three disks that writes to all of them, and what may happen to it. */
export class LoadedMachine {
  readonly #t: Test
  readonly directory: string
  readonly disks: LoadedDisk[]
  guest!: Guest

  /** Makes the disks: two qcow2 of different clusters, and a raw one. */
  constructor(t: Test) {
    this.#t = t
    this.directory = t.testdir()
    const make = (name: string, disk: Partial<GuestDisk>, options = '') => {
      const { format = 'qcow2' } = disk
      const path = makeExt4(join(this.directory, name), SIZE, { format, options })
      return { name, node: name, path, layers: [{ node: name, path }], ...disk }
    }
    this.disks = [
      make('a', {}),
      make('b', { bus: 'scsi', detectZeroes: 'unmap' }, 'cluster_size=2M'),
      make('c', { format: 'raw' }),
    ]
  }

  get names(): string[] {
    return this.disks.map(({ name }) => name)
  }

  get monitor(): string {
    return this.guest.monitor
  }

  get qmp(): Guest['qmp'] {
    return this.guest.qmp
  }

  /** Starts QEMU on the disks as they are now. */
  async start(): Promise<void> {
    for (const disk of this.disks) {
      // Backing files get nodes without a name of ours.
      const [{ path }] = disk.layers
      Object.assign(disk, { path, node: disk.name })
      disk.layers[0].node = disk.name
    }
    this.guest = await startGuest(this.#t, { disks: this.disks })
    await startLoad(this.guest, this.names)
  }

  /** Waits until each disk has been written to some more. */
  async more(): Promise<void> {
    await moreLoad(this.guest, this.names)
  }

  /** Ends QEMU in good order, and starts another one. */
  async restart(): Promise<void> {
    await this.guest.stop()
    await this.start()
  }

  /** Ends QEMU by SIGKILL. */
  async kill(): Promise<void> {
    await this.guest.kill()
  }

  async reboot(): Promise<void> {
    await this.guest.reboot()
    await startLoad(this.guest, this.names)
  }

  async grow(name: string, bytes: number): Promise<void> {
    const { node } = this.#disk(name)
    const size = (await this.#node(node)).image['virtual-size'] + bytes
    await this.guest.qmp.execute('block_resize', { 'node-name': node, size })
  }

  /**
   * Puts an external snapshot on top.
   * @param goesOn the new image gets bitmaps of the names of those that record below
   */
  async snapshot(name: string, goesOn: boolean): Promise<void> {
    const disk = this.#disk(name)
    const { node, image, ...below } = await this.#node(disk.node).then((found) => ({
      ...found,
      node: `${disk.node}s`,
    }))
    const path = `${disk.path}s`
    const { qmp } = this.guest
    const size = `${image['virtual-size']}`
    qemuImg('create', '-q', '-u', '-f', 'qcow2', '-b', disk.path, '-F', 'qcow2', path, size)
    const file = { driver: 'file', filename: path, discard: 'unmap' }
    const overlay = { driver: 'qcow2', 'node-name': node, discard: 'unmap', backing: null, file }
    await qmp.execute('blockdev-add', overlay)
    const bitmaps = goesOn ? (below['dirty-bitmaps'] ?? []) : []
    await qmp.execute('transaction', {
      actions: [
        ...bitmaps.map((bitmap) => ({
          type: 'block-dirty-bitmap-add',
          data: { node, name: bitmap.name, persistent: true, granularity: 65536 },
        })),
        { type: 'blockdev-snapshot', data: { node: disk.node, overlay: node } },
      ],
    })
    disk.layers.unshift({ node, path })
    Object.assign(disk, { node, path })
  }

  /** Commits the topmost image into that below it, and goes on there. */
  async commit(name: string): Promise<void> {
    const disk = this.#disk(name)
    const [top, base] = disk.layers
    const { qmp } = this.guest
    const id = 'commit'
    const changed = qmp.events({ names: ['JOB_STATUS_CHANGE'], fits: (data) => data.id === id })
    const wait = async (status: string) => {
      while ((await changed.next()).data.status !== status);
    }
    const baseNode = await this.#nodeOf(base.path)
    await qmp.execute('block-commit', { 'job-id': id, device: top.node, 'base-node': baseNode })
    await wait('ready')
    await qmp.execute('job-complete', { id })
    await wait('null')
    changed.close()
    await qmp.execute('blockdev-del', { 'node-name': top.node })
    disk.layers.shift()
    base.node = baseNode
    Object.assign(disk, { node: base.node, path: base.path })
  }

  #disk(name: string): LoadedDisk {
    return this.disks.find((disk) => disk.name === name)!
  }

  async #nodes(): Promise<(Node & { file: string; drv: string })[]> {
    return (await this.guest.qmp.execute('query-named-block-nodes', { flat: true })) as (Node & {
      file: string
      drv: string
    })[]
  }

  async #node(name: string): Promise<Node> {
    return (await this.#nodes()).find((node) => node['node-name'] === name)!
  }

  async #nodeOf(path: string): Promise<string> {
    return (await this.#nodes()).find((node) => node.drv === 'qcow2' && node.file === path)![
      'node-name'
    ]
  }
}
