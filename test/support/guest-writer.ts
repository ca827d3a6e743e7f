/** A guest that writes to its disk all the time: qemu-io on an export. */
import { spawn } from 'node:child_process'
import type { Test } from 'tap'

/** It goes on until it is stopped, or the test ends. */
export interface GuestWriter {
  /** Resolves once it has written some more. */
  hasWritten(): Promise<void>
  stop(): Promise<void>
}

/** Commands of one qemu-io. */
const BATCH = 40

/**
 * Starts writing data, zeroes and discards all over a disk.
 * @param uri of a writable export
 * @param size of the disk, bytes
 */
export function startWriting(t: Test, uri: string, size: number, seed = 1): GuestWriter {
  let state = seed
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
  let isStopped = false
  let batches: (() => void)[] = []
  const command = () => {
    const length = 4096 * (1 + random(32))
    const offset = 4096 * random((size - length) / 4096)
    const kind = random(8)
    if (kind === 0) return `write -z -u ${offset} ${length}`
    if (kind === 1) return `discard ${offset} ${length}`
    return `write -P ${1 + random(255)} ${offset} ${length}`
  }
  const batch = async () => {
    const commands = Array.from({ length: BATCH }, command)
    const child = spawn('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), uri], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let stderr = ''
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text
    })
    const status = await new Promise((resolve, reject) => {
      child.on('error', reject)
      child.on('close', resolve)
    })
    if (status !== 0) throw new Error(`the guest's write failed: ${stderr}`)
  }
  const run = async () => {
    while (!isStopped) {
      await batch()
      const told = batches
      batches = []
      for (const tell of told) tell()
    }
  }
  const running = run()
  running.catch(() => undefined)
  const stop = async () => {
    isStopped = true
    await running
  }
  t.teardown(() => stop().catch(() => undefined))
  return {
    hasWritten: async () => {
      await Promise.race([new Promise<void>((resolve) => batches.push(resolve)), running])
    },
    stop,
  }
}
