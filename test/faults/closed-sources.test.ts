/**
 * Where descriptors are scarce the addon reads by those of the caller, who closes them in the end:
 * never while a read is under way, since the number may be another file's in the next moment.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { makeRaw, noise } from '../support/disks.ts'
import { inMountNamespace } from '../support/namespace.ts'

const MIB = 2 ** 20
const LIBRARY = fileURLToPath(new URL('../../lib/index.js', import.meta.url))

/** Copies and comparisons that are aborted in their midst, and copies that fail there. */
const PROGRAM = `
  import { compareImages, fullBackup } from ${JSON.stringify(LIBRARY)}
  for (let i = 0; i < 6; i++) {
    const stop = new AbortController()
    const { signal } = stop
    const onProgress = ({ position }) => position > 0 && stop.abort()
    const engine = 'threads'
    const run = [
      () => fullBackup('disk.raw', 'out.qcow2', { engine, signal, onProgress }),
      () => fullBackup('disk.raw', 'small/out.qcow2', { engine, direct: 'off' }),
      () => compareImages(['disk.raw', 'same.raw'], { formats: ['raw', 'raw'], signal, onEqual: () => stop.abort() }),
    ][i % 3]
    const why = await run().then(() => 'done', ({ code }) => code)
    console.log(why)
  }`

t.test('sources are closed when nothing reads from them any more', async (t) => {
  const size = 64 * MIB
  const dir = t.testdir({ small: {} })
  for (const name of ['disk.raw', 'same.raw']) {
    makeRaw(join(dir, name), size, [{ at: 0, bytes: noise(size) }])
  }
  writeFileSync(join(dir, 'program.mjs'), PROGRAM)
  const script = `
    cd "$1"
    mount -t tmpfs -o size=8m none small
    # Fewer than what is left for others.
    ulimit -n 84
    # Each read takes so long that a descriptor which is not waited for is closed meanwhile.
    slow='-e inject=preadv:delay_enter=150000'
    exec strace -f -qq -y -e trace=preadv,pread64,close $slow -e signal=none -o trace "$2" program.mjs`
  const { status, stdout, stderr } = inMountNamespace(script, dir, process.execPath)
  t.equal(status, 0, stderr)
  const ends = stdout.trim().split('\n')
  t.equal(ends.filter((code) => code === 'IO').length, 2, 'a full disk ends those that it should')
  t.ok(ends.includes('ABORTED'), ends.join())
  /** Reads under way, by their thread. */
  const reading = new Map<string, string>()
  let reads = 0
  let closed = 0
  for (const line of readFileSync(join(dir, 'trace'), 'utf8').split('\n')) {
    const [, thread, call] = /^(\d+) +(.*)$/.exec(line) ?? []
    if (!call) continue
    const file = /^\w+\((\d+<[^>]*\.raw>)/.exec(call)?.[1]
    if (call.startsWith('close(') && file) {
      closed++
      t.notOk([...reading.values()].includes(file), `closed while it is read: ${call}`)
    } else if (file) {
      reads++
      if (call.includes('unfinished')) reading.set(thread, file)
    } else if (/^<\.\.\. pread\w* resumed/.test(call)) {
      reading.delete(thread)
    }
  }
  t.ok(reads > 40 && closed >= 6, `${reads} reads, ${closed} descriptors closed`)
})
