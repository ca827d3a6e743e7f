import { tmpdir } from 'node:os'
import { basename, dirname } from 'node:path'
import { argumentError, BackupError, throwIfAborted } from '../../errors.ts'
import { removeDirectory } from '../../files.ts'
import { parseQmpAddress } from '../../qmp/address.ts'
import { ask } from '../../qmp/ask.ts'
import { QmpClient } from '../../qmp/client.ts'
import { QmpError } from '../../qmp/qmp-error.ts'
import type {
  CleanOptions,
  FreezeOptions,
  Leftover,
  Machine,
  MachineDisk,
  MachineOptions,
  PointInTime,
} from '../machine.ts'
import { isRunAlive } from '../run-lock.ts'
import { findGuestAgent, thawGuest } from './agent.ts'
import { beginPoint } from './begin-point.ts'
import { type QmpDisk, readDisks } from './disks.ts'
import { detectFeatures, type Features } from './features.ts'
import { removeRun } from './remove-run.ts'
import { deadServers } from './server-directory.ts'
import { leftoversOf, type RunParts, Survey } from './survey.ts'

/**
 * Connects to the monitor of a QEMU or a qemu-storage-daemon on this host. It takes one client at a
 * time.
 * @param address a socket's path, or `HOST:PORT`
 * @throws BackupError USAGE, IO, UNSUPPORTED, ABORTED
 */
export async function openQmpMachine(
  address: string,
  options: MachineOptions = {},
): Promise<Machine> {
  requireOwn(options)
  const title = `qmp:${address}`
  const client = await connect(address, options.signal)
  try {
    const features = await detectFeatures(client, title)
    const name = options.name ?? (await guestName(client)) ?? addressName(address)
    return new QmpMachine(title, name, address, client, features, options)
  } catch (error) {
    client.close()
    throw error
  }
}

/** @throws BackupError USAGE for options of other kinds of machines */
function requireOwn(options: MachineOptions): void {
  const { connect, nbdAddress, tlsCertificates, format, allowPaths, backingFormat } = options
  for (const [name, value] of Object.entries({ connect, nbdAddress, tlsCertificates })) {
    if (value !== undefined) throw argumentError(name, 'is only for libvirt machines')
  }
  for (const [name, value] of Object.entries({ format, allowPaths, backingFormat })) {
    if (value !== undefined) throw argumentError(name, 'is only for disks at rest')
  }
}

/** The signal ends the connecting only: what a run made is removed over the connection afterwards. */
async function connect(address: string, signal?: AbortSignal): Promise<QmpClient> {
  throwIfAborted(signal, address)
  const connecting = new AbortController()
  const abort = () => connecting.abort(signal?.reason)
  signal?.addEventListener('abort', abort)
  try {
    return await QmpClient.connect(address, { signal: connecting.signal })
  } finally {
    signal?.removeEventListener('abort', abort)
  }
}

async function guestName(client: QmpClient): Promise<string | undefined> {
  try {
    return (await ask<{ name?: string }>(client, 'query-name', { 'name?': 'string' })).name
  } catch (error) {
    if (error instanceof QmpError) return undefined
    throw error
  }
}

function addressName(address: string): string {
  const where = parseQmpAddress(address)
  if (!('path' in where)) return where.host
  return basename(where.path).replace(/\.(sock|socket|qmp|monitor)$/, '') || 'qemu'
}

/** The machine; see there. */
class QmpMachine implements Machine {
  readonly title: string
  readonly name: string
  readonly #address: string
  readonly #features: Features
  readonly #options: Pick<MachineOptions, 'nbdServer' | 'guestAgent'>
  #client!: QmpClient
  #isConnected = false

  constructor(
    title: string,
    name: string,
    address: string,
    client: QmpClient,
    features: Features,
    options: Pick<MachineOptions, 'nbdServer' | 'guestAgent'>,
  ) {
    this.title = title
    this.name = name
    this.#address = address
    this.#features = features
    this.#options = options
    this.#use(client)
  }

  #use(client: QmpClient): QmpClient {
    this.#client = client
    this.#isConnected = true
    void client.closed().then(() => {
      if (this.#client === client) this.#isConnected = false
    })
    return client
  }

  /** Connects again where the connection has ended. */
  async #monitor(): Promise<QmpClient> {
    return this.#isConnected ? this.#client : this.#use(await connect(this.#address))
  }

  async disks(signal?: AbortSignal): Promise<MachineDisk[]> {
    throwIfAborted(signal, this.title)
    return (await readDisks(await this.#monitor(), this.#features)).map(publicDisk)
  }

  async freeze(options: FreezeOptions): Promise<PointInTime> {
    const { title } = this
    const { nbdServer, guestAgent } = this.#options
    const features = this.#features
    const monitor = () => this.#monitor()
    return await beginPoint({ title, features, nbdServer, guestAgent, monitor }, options)
  }

  async leftovers(signal?: AbortSignal): Promise<Leftover[]> {
    throwIfAborted(signal, this.title)
    return (await this.#deadRuns()).flatMap(({ leftovers }) => leftovers)
  }

  async clean({ signal, isStored = () => false }: CleanOptions = {}): Promise<Leftover[]> {
    throwIfAborted(signal, this.title)
    const removed: Leftover[] = []
    const notes: string[] = []
    for (const { parts, leftovers } of await this.#deadRuns()) {
      throwIfAborted(signal, this.title)
      const { run, files } = parts
      const how = { files, isStored: isStored(run), thaw: () => this.#thaw() }
      notes.push(...(await removeRun(await this.#monitor(), run, how)))
      removed.push(...leftovers)
    }
    // Of a machine that has ended, whichever it was, nothing else tells of it.
    for (const directory of await deadServers()) await removeDirectory(directory)
    if (notes.length > 0) throw new BackupError('IO', this.title, notes.join('; '))
    return removed
  }

  async #thaw(): Promise<void> {
    const { guestAgent } = this.#options
    await thawGuest(guestAgent ?? (await findGuestAgent(await this.#monitor(), this.title)))
  }

  /** Runs whose processes are gone. */
  async #deadRuns(): Promise<{ parts: RunParts; leftovers: Leftover[] }[]> {
    const client = await this.#monitor()
    const disks = await readDisks(client, this.#features)
    const survey = await Survey.take(client, scratchDirectories(disks))
    const diskOf = (node: string) => disks.find(({ chain }) => chain.includes(node))?.name
    const dead: { parts: RunParts; leftovers: Leftover[] }[] = []
    for (const parts of survey.runs) {
      if (await isRunAlive(parts.run)) continue
      dead.push({ parts, leftovers: leftoversOf(parts, diskOf) })
    }
    return dead
  }

  async close(): Promise<void> {
    this.#client.close()
    await this.#client.closed()
  }
}

function publicDisk({ root: _, device: __, chain: ___, ...disk }: QmpDisk): MachineDisk {
  return disk
}

/** Where temporary images are if nothing else is said. */
function scratchDirectories(disks: readonly QmpDisk[]): string[] {
  return [tmpdir(), ...disks.flatMap(({ path }) => (path === undefined ? [] : [dirname(path)]))]
}
