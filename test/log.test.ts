/** The debug log: a line for each decision with its reason, for each topic; silent unless asked. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import * as library from '../lib/index.ts'
import { type LogLine, log, TOPICS, type Topic } from '../lib/log.ts'
import { openMachine } from '../lib/machine/open-machine.ts'
import { QmpClient } from '../lib/qmp/client.ts'
import { runCli } from './support/cli.ts'
import { startImageioDaemon } from './support/imageio-daemon.ts'
import { qemuImg } from './support/qemu.ts'
import { startQemuNbd } from './support/qemu-nbd.ts'
import { startMonitor } from './support/qmp-server.ts'

t.setTimeout(300_000)

/** What is told about a topic while something runs. */
async function linesOf(topic: Topic, run: () => Promise<unknown>): Promise<string> {
  const lines: string[] = []
  const take = (line: unknown) => {
    const { topic: about, text } = line as LogLine
    lines.push(`${about}: ${text}`)
  }
  subscribe(`qcow2-backup:${topic}`, take)
  try {
    await run()
  } finally {
    unsubscribe(`qcow2-backup:${topic}`, take)
  }
  return lines.join('\n')
}

/** A directory with a chain `base` ← `top`, of which `base` has a bitmap `b`. */
function setUp(test: Test): string {
  const dir = test.testdir()
  mkdirSync(join(dir, 'elsewhere'))
  qemuImg('create', '-q', '-f', 'qcow2', join(dir, 'base'), '1M')
  qemuImg('bitmap', '--add', join(dir, 'base'), 'b')
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base', join(dir, 'top'))
  qemuImg('create', '-q', '-f', 'qcow2', join(dir, 'elsewhere', 'base'), '1M')
  qemuImg(
    ...['create', '-q', '-f', 'qcow2', '-F', 'qcow2'],
    ...['-b', 'elsewhere/base', join(dir, 'outside')],
  )
  writeFileSync(join(dir, 'raw'), Buffer.alloc(2 ** 20, 'data'))
  return dir
}

t.test('every topic tells its decisions and their reasons', async (t) => {
  const dir = setUp(t)
  const at = (name: string) => join(dir, name)
  const { fullBackup, checkImage, diffToBitmap, openSource } = library
  const cases: Record<Topic, [run: () => Promise<unknown>, expected: RegExp[]]> = {
    image: [
      () => fullBackup(at('top'), at('1')),
      [/top: opened as qcow2, recognised by its content/, /base: opened as qcow2, as it was said/],
    ],
    gate: [
      async () => {
        await fullBackup(at('top'), at('2'))
        await t.rejects(fullBackup(at('outside'), at('3')), { code: 'NOT_ALLOWED' })
        await fullBackup(at('outside'), at('3'), { allowPaths: [at('elsewhere')] })
      },
      [
        /top: followed its backing file "?'?base.* in the directory of the image/,
        /outside: refused its backing file .* outside/,
        /outside: followed its backing file .* as allowed/,
      ],
    ],
    lock: [() => fullBackup(at('top'), at('4')), [/top: locked for consistent read; denying/]],
    nbd: [
      async () => {
        const server = await startQemuNbd(t, at('elsewhere/base'))
        await fullBackup(server.uri, at('5'))
      },
      [/: connected; 1048576 bytes/, /connections of \d+ requests/],
    ],
    imageio: [
      async () => {
        const { url } = await startImageioDaemon(t, { bytes: Buffer.alloc(2 ** 20, 1) })
        await fullBackup(url, at('imageio.qcow2'))
      },
      [/images\/3a7c9d10…: 1048576 bytes; checksum, extents; 4 of 8 connections/],
    ],
    virsh: [
      async () => {
        const connect = `qemu+unix:///session?socket=${at('no-socket')}`
        await t.rejects(openMachine('libvirt:web1', { connect }), { code: 'IO' })
      },
      [/libvirt:web1: list: status 1/],
    ],
    qmp: [
      async () => {
        const { path } = await startMonitor(t, ({ id }, send) => send({ id, return: {} }))
        const client = await QmpClient.connect(path)
        await client.execute('blockdev-add', { password: 'hidden' })
        client.close()
      },
      [/: execute blockdev-add, id \d+/, /: blockdev-add, id \d+: returned/, /: ended: /],
    ],
    plan: [() => fullBackup(at('raw'), at('6')), [/from 0 to 1048576: 1 data of 1048576 bytes/]],
    copy: [
      () => fullBackup(at('raw'), at('7'), { engine: 'threads', direct: 'off' }),
      [/7: engine threads, written through the page cache; asked for threads, O_DIRECT off/],
    ],
    target: [
      async () => {
        await fullBackup(at('raw'), at('8'))
        await fullBackup(at('raw'), at('8'), { force: true })
      },
      [/8: the name is free/, /8: made /, /8: synced/, /8: has its name/, /8: a file .* by force/],
    ],
    edit: [
      () => library.editBitmap(at('base'), 'c', [{ kind: 'add' }]),
      [/base: checking it before/, /a step of \d+ writes/],
    ],
    check: [() => checkImage(at('base')), [/base: 0 corruptions, 0 leaks, 0 errors; COPIED/]],
    compare: [
      () => diffToBitmap(at('base'), at('raw'), 'd', { granularity: 65536 }),
      [/base with .*raw: by granules of 65536/],
    ],
    serve: [
      async () => {
        const { tickets, close } = library.createImageServer()
        const uuid = '2c5f9a0e-6d0a-4c0b-9d5e-3f6f0c1b2a3d'
        const url = `file://${at('raw')}`
        await tickets.add({ uuid, size: 2 ** 20, ops: ['read'], timeout: 9, url })
        await close()
      },
      [/^serve: ticket 2c5f9a0e…: added, read of 1048576 bytes of file:.*raw for 9 s$/],
    ],
  }
  t.strictSame(Object.keys(cases), [...TOPICS])
  for (const topic of TOPICS) {
    const [run, expected] = cases[topic]
    const lines = await linesOf(topic, run)
    for (const line of expected) t.match(lines, line, topic)
    for (const line of lines.split('\n')) t.ok(line.startsWith(`${topic}: `), line)
  }
  const source = await openSource(at('raw'))
  await source.close()
})

t.test('a line that nobody wants is not made', async (t) => {
  let made = 0
  log('plan', () => `made ${++made} times`)
  t.equal(made, 0)
  t.equal(
    await linesOf('plan', async () => log('plan', () => `made ${++made} times`)),
    'plan: made 1 times',
  )
})

t.test('QCOW2_BACKUP_DEBUG and --debug print lines on stderr', async (t) => {
  const cwd = setUp(t)
  const run = async (topics: string | undefined, ...args: string[]) => {
    const env = { QCOW2_BACKUP_DEBUG: topics }
    const { status, stdout, stderr } = await runCli(['full', ...args], { cwd, env })
    t.equal(status, 0)
    t.match(stdout, /complete/)
    return stderr
  }
  t.equal(await run(undefined, 'raw', '1'), '', 'nothing unless asked')
  const some = await run('plan, target', 'raw', '2')
  for (const line of some.trimEnd().split('\n')) t.match(line, /^qcow2-backup (plan|target): /)
  t.match(some, /plan: from 0/)
  const all = await run('*', 'raw', '3')
  t.match(all, /^qcow2-backup copy: /m)
  t.match(await run(undefined, '--debug', 'raw', '4'), /^qcow2-backup copy: /m)
  t.match(await run('plam', 'raw', '5'), /there is no topic 'plam'; there are image, gate/)
  const broken = await run('target', 'raw', 'a\nb')
  for (const line of broken.trimEnd().split('\n')) t.match(line, /^qcow2-backup target: /)
})

t.test('credentials are not printed', async (t) => {
  const uri = 'nbd://alice-secret@127.0.0.1:1/disk'
  const lines: string[] = []
  for (const topic of TOPICS) {
    lines.push(await linesOf(topic, () => library.openSource(uri).catch(() => {})))
  }
  t.notMatch(lines.join('\n'), 'alice-secret')
  const ticket = await linesOf('imageio', async () => {
    log('imageio', () => 'https://host/images/12345678-1234 and /images/12345678-1234 are asked')
  })
  t.equal(ticket, 'imageio: https://host/images/12345678… and /images/12345678-1234 are asked')
  const made = await linesOf('nbd', async () => {
    log('nbd', () => 'nbds://a:b@c@host/x and nbd://host/a@b are asked')
  })
  t.equal(made, 'nbd: nbds://host/x and nbd://host/a@b are asked')
})
