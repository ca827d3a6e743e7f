import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError } from '../../../lib/errors.ts'
import { QmpClient } from '../../../lib/qmp/client.ts'
import { sizeOf } from '../measure.ts'
import type { Run } from '../results.ts'
import type { Image } from '../verify.ts'
import { type Server, type Stage, socketPath, socketUri, startServer } from './server.ts'
import { resetPeak, usageOf } from './usage.ts'

const NODE = 'disk'
const EXPORT = 'export'
const TARGET = 'target'
const JOB = 'backup'

/** A storage daemon that serves one disk, read-only and past the page cache. */
export interface StorageDaemon extends Server {
  /** The disk's export. */
  uri: string
  /**
   * Has the daemon itself back up the ranges dirty in the bitmap.
   * @param target an image of the disk's size that it is written into
   * @returns the job's cost: wall from the command to the completion event, the rest the daemon's
   * @throws BackupError IO if the job fails
   */
  backup(target: string): Promise<Run>
}

/** The job of `backup`, in words. */
export function jobInWords(bitmap: string): string {
  return `qemu-storage-daemon: blockdev-backup sync=bitmap bitmap=${bitmap} bitmap-mode=never`
}

/**
 * Starts a storage daemon. It holds the disk read-only, so the file stays as it is: even its
 * bitmaps are not marked as in use.
 * @param bitmap name of a persistent bitmap, to be exported along with the disk
 */
export async function startStorageDaemon(
  disk: Image,
  bitmap: string | undefined,
  stage: Stage,
): Promise<StorageDaemon> {
  const monitor = socketPath(stage, 'monitor.sock')
  const socket = socketPath(stage, 'disk.sock')
  const pidFile = join(stage.scratch, 'daemon.pid')
  await rm(pidFile, { force: true })
  const bitmaps = bitmap === undefined ? [] : [bitmap]
  const exported = { id: EXPORT, type: 'nbd', 'node-name': NODE, name: NODE, bitmaps }
  const argv = [
    'qemu-storage-daemon',
    ...['--chardev', `socket,id=monitor,path=${commasDoubled(monitor)},server=on,wait=off`],
    ...['--monitor', 'chardev=monitor', '--pidfile', pidFile],
    ...['--nbd-server', JSON.stringify({ addr: { type: 'unix', path: socket } })],
    ...['--blockdev', JSON.stringify({ ...node(NODE, disk), 'read-only': true })],
    ...['--export', JSON.stringify(exported)],
  ]
  const server = await startServer(argv, pidFile, stage)
  const qmp = await QmpClient.connect(monitor, { signal: stage.signal })
  stage.atEnd(async () => qmp.close())

  const backup = async (target: string): Promise<Run> => {
    await qmp.execute('blockdev-add', node(TARGET, { path: target, format: 'qcow2' }))
    // A bitmap that is exported cannot be given to a job.
    const deleted = qmp.events({ names: ['BLOCK_EXPORT_DELETED'] })
    await qmp.execute('block-export-del', { id: EXPORT })
    await deleted.next()
    deleted.close()
    const run = await timeJob(server.pid, target, qmp, bitmap)
    await qmp.execute('blockdev-del', { 'node-name': TARGET })
    await qmp.execute('block-export-add', exported)
    return run
  }
  return { ...server, uri: socketUri(socket, NODE), backup }
}

async function timeJob(
  pid: number,
  target: string,
  qmp: QmpClient,
  bitmap: string | undefined,
): Promise<Run> {
  const job = { 'job-id': JOB, device: NODE, target: TARGET }
  const scope = { sync: 'bitmap', bitmap, 'bitmap-mode': 'never' }
  await resetPeak(pid)
  const before = await usageOf(pid)
  const begin = process.hrtime.bigint()
  const completed = qmp.events({ names: ['BLOCK_JOB_COMPLETED'] })
  const gone = qmp.events({ names: ['JOB_STATUS_CHANGE'], fits: ({ status }) => status === 'null' })
  await qmp.execute('blockdev-backup', { ...job, ...scope })
  const { error } = (await completed.next()).data
  const wall = Number(process.hrtime.bigint() - begin) / 1e9
  const after = await usageOf(pid)
  if (error !== undefined) throw new BackupError('IO', 'blockdev-backup', String(error))
  await gone.next()
  return {
    wall,
    cpu: after.cpu - before.cpu,
    peak: after.peak,
    written: after.written - before.written,
    ...(await sizeOf(target)),
  }
}

/** An image past the page cache, as `blockdev-add` takes it. */
function node(name: string, { path, format }: Image) {
  const cache = { direct: true }
  const file = { driver: 'file', filename: path, cache, aio: 'native' }
  return { driver: format, 'node-name': name, cache, file }
}

/** QEMU's options end at a comma; two of them mean one. */
function commasDoubled(path: string): string {
  return path.replaceAll(',', ',,')
}
