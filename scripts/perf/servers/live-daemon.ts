import { rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '../../../lib/errors.ts'
import { QmpClient } from '../../../lib/qmp/client.ts'
import { sizeOf } from '../measure.ts'
import type { Run } from '../results.ts'
import { type Server, type Stage, socketPath, socketUri, startServer } from './server.ts'
import { resetPeak, type Usage, usageOf } from './usage.ts'

/** The disk's node and export. */
export const NODE = 'disk'
const TARGET = 'target'
const JOB = 'push'

/** A storage daemon whose disk a guest writes to, and that is backed up meanwhile. */
export interface LiveDaemon extends Server {
  /** Of a second monitor: one takes one client. */
  monitor: string
  /** The NBD server's, with the guest's export. */
  uri: string
  /** Adds a bitmap that records from now on. */
  addBitmap(name: string): Promise<void>
  /** Removes all bitmaps but one. */
  keepBitmap(name?: string): Promise<void>
  /**
   * QEMU's own backup, from the command to the closed and synced image.
   * @param bitmap of the changes since the last one; default: everything
   * @param onBegin called when the point in time is there
   */
  push(target: string, bitmap?: string, onBegin?: () => void): Promise<Run>
  /** Adds what the daemon uses meanwhile to what a client did. */
  withOwn(client: () => Promise<Run>): Promise<Run>
}

/** The push job, in words. */
export function pushInWords(bitmap?: string): string {
  const scope =
    bitmap === undefined ? 'sync=full' : `sync=bitmap bitmap=${bitmap} bitmap-mode=never`
  return `qemu-storage-daemon: transaction: new bitmap, blockdev-backup ${scope}; blockdev-del`
}

/** @param image qcow2 */
export async function startLiveDaemon(image: string, stage: Stage): Promise<LiveDaemon> {
  const [own, monitor, socket] = ['own.qmp', 'live.qmp', 'live.sock'].map((name) =>
    socketPath(stage, name),
  )
  const pidFile = join(stage.scratch, 'live.pid')
  await rm(pidFile, { force: true })
  const exported = { id: 'guest', type: 'nbd', 'node-name': NODE, name: NODE, writable: true }
  const monitorArguments = (id: string, path: string) => [
    ...['--chardev', `socket,id=${id},path=${path},server=on,wait=off`],
    ...['--monitor', `chardev=${id}`],
  ]
  const argv = [
    'qemu-storage-daemon',
    ...monitorArguments('own', own),
    ...monitorArguments('second', monitor),
    ...['--pidfile', pidFile],
    ...['--nbd-server', JSON.stringify({ addr: { type: 'unix', path: socket } })],
    ...['--blockdev', JSON.stringify(qcow2(NODE, image))],
    ...['--export', JSON.stringify(exported)],
  ]
  const server = await startServer(argv, pidFile, stage)
  const qmp = await QmpClient.connect(own, { signal: stage.signal })
  stage.atEnd(async () => qmp.close())

  const cost = (before: Usage, after: Usage): Omit<Run, 'wall' | 'fileSize' | 'allocated'> => ({
    cpu: after.cpu - before.cpu,
    peak: after.peak,
    written: after.written - before.written,
  })
  const bitmaps = async () => {
    const nodes = (await qmp.execute('query-named-block-nodes', { flat: true })) as {
      'node-name': string
      'dirty-bitmaps'?: { name: string }[]
    }[]
    return nodes.find((node) => node['node-name'] === NODE)?.['dirty-bitmaps'] ?? []
  }
  const addBitmap = (name: string) => ({ node: NODE, name, granularity: 65536, persistent: true })

  return {
    ...server,
    monitor,
    uri: socketUri(socket, NODE),
    async addBitmap(name) {
      await qmp.execute('block-dirty-bitmap-add', addBitmap(name))
    },
    async keepBitmap(kept) {
      for (const { name } of await bitmaps()) {
        if (name !== kept) await qmp.execute('block-dirty-bitmap-remove', { node: NODE, name })
      }
    },
    async push(target, bitmap, onBegin = () => {}) {
      await resetPeak(server.pid)
      const before = await usageOf(server.pid)
      const begin = process.hrtime.bigint()
      await push(qmp, target, addBitmap('pushed'), bitmap, onBegin)
      const wall = Number(process.hrtime.bigint() - begin) / 1e9
      return { wall, ...cost(before, await usageOf(server.pid)), ...(await sizeOf(target)) }
    },
    async withOwn(client) {
      await resetPeak(server.pid)
      const before = await usageOf(server.pid)
      const run = await client()
      const used = cost(before, await usageOf(server.pid))
      return {
        ...run,
        cpu: run.cpu + used.cpu,
        peak: Math.max(run.peak, used.peak),
        written: run.written + used.written,
      }
    },
  }
}

async function push(
  qmp: QmpClient,
  target: string,
  begun: ReturnType<typeof Object>,
  bitmap: string | undefined,
  onBegin: () => void,
): Promise<void> {
  await stat(target)
  const scope =
    bitmap === undefined ? { sync: 'full' } : { sync: 'bitmap', bitmap, 'bitmap-mode': 'never' }
  const completed = qmp.events({ names: ['BLOCK_JOB_COMPLETED'] })
  const gone = qmp.events({ names: ['JOB_STATUS_CHANGE'], fits: ({ status }) => status === 'null' })
  await qmp.execute('blockdev-add', qcow2(TARGET, target))
  const job = { 'job-id': JOB, device: NODE, target: TARGET, ...scope }
  await qmp.execute('transaction', {
    actions: [
      { type: 'block-dirty-bitmap-add', data: begun },
      { type: 'blockdev-backup', data: job },
    ],
  })
  onBegin()
  const { error } = (await completed.next()).data
  if (error !== undefined) throw new BackupError('IO', 'blockdev-backup', String(error))
  await gone.next()
  // It writes back and syncs.
  await qmp.execute('blockdev-del', { 'node-name': TARGET })
  for (const queue of [completed, gone]) queue.close()
}

/** An image past the page cache, as `blockdev-add` takes it. */
function qcow2(name: string, path: string) {
  const cache = { direct: true }
  const file = { driver: 'file', filename: path, cache, aio: 'native', discard: 'unmap' }
  return { driver: 'qcow2', 'node-name': name, cache, file, discard: 'unmap' }
}
