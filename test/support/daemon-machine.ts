import { join } from 'node:path'
import type { Test } from 'tap'
import { type GuestWriter, startWriting } from './guest-writer.ts'
import { qemuImg, qemuIo } from './qemu.ts'
import { unixUri } from './server.ts'
import { type StorageDaemon, startStorageDaemon } from './storage-daemon.ts'

const SIZE = 24 * 2 ** 20

/** A storage daemon with three disks, each written to through an export, and what may happen to it. */
export class DaemonMachine {
  readonly #t: Test
  readonly directory: string
  readonly disks: { name: string; path: string; format: 'raw' | 'qcow2' }[]
  #daemon!: StorageDaemon
  #writers: GuestWriter[] = []

  /** Makes the disks: two qcow2 of different clusters, and a raw one. */
  constructor(t: Test) {
    this.#t = t
    this.directory = t.testdir()
    const make = (name: string, format: 'raw' | 'qcow2', ...options: string[]) => {
      const path = join(this.directory, name)
      qemuImg('create', '-q', '-f', format, ...options, path, `${SIZE}`)
      qemuIo({ path, format }, 'write -P 1 0 20M')
      return { name, path, format }
    }
    this.disks = [make('a', 'qcow2'), make('b', 'qcow2', '-o', 'cluster_size=2M'), make('c', 'raw')]
  }

  get monitor(): string {
    return this.#daemon.monitor
  }

  get qmp(): StorageDaemon['client'] {
    return this.#daemon.client
  }

  /** It serves the guest's exports too; a daemon has one NBD server at most. */
  get nbdServer(): string {
    return unixUri(this.#daemon.socket)
  }

  async start(): Promise<void> {
    this.#daemon = await startStorageDaemon(this.#t)
    for (const { name, path, format } of this.disks) {
      await this.#daemon.open(name, path, format)
      const guest = await this.#daemon.export(name, { name: `guest-${name}`, writable: true })
      this.#writers.push(startWriting(this.#t, guest, SIZE, name.charCodeAt(0)))
    }
    await this.more()
  }

  /** Waits until each disk has been written to some more. */
  async more(): Promise<void> {
    for (const writer of this.#writers) await writer.hasWritten()
  }

  /** Ends the daemon in good order, and starts another one. */
  async restart(): Promise<void> {
    for (const writer of this.#writers.splice(0)) await writer.stop()
    this.qmp.close()
    await this.#daemon.stop()
    await this.start()
  }

  /** Ends the daemon by SIGKILL. */
  async kill(): Promise<void> {
    const writers = this.#writers.splice(0)
    await this.#daemon.stop('SIGKILL')
    // Their export has gone.
    for (const writer of writers) await writer.stop().catch(() => undefined)
    this.qmp.close()
  }
}
