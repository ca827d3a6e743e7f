/** `serve` as a program: addresses, the control socket, TLS, its end. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { request as tlsRequest } from 'node:https'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { makeCertificates } from '../../support/certificates.ts'
import { CLI, runCli, spawnCli } from '../../support/cli.ts'
import { socketDirectory } from '../../support/server.ts'

const MIB = 2 ** 20

t.setTimeout(300_000)

interface Served {
  child: ChildProcess
  where: { listen: string[]; control: string }
  control: string
  ended: Promise<number | null>
  stderr(): string
}

/** Starts the program and waits until it says where it listens. */
async function start(t: Test, ...args: string[]): Promise<Served> {
  const control = join(socketDirectory(t), 'control')
  const all = ['serve', '--json', '--control', `unix:${control}`, ...args]
  const child = spawn(process.execPath, [CLI, ...all], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const ended = once(child, 'close').then(([status]) => status as number | null)
  const [line] = await Promise.race([once(child.stdout, 'data'), once(child, 'close')])
  t.equal(stderr, '')
  return { child, where: JSON.parse(`${line}`), control, ended, stderr: () => stderr }
}

/** A request over a Unix socket or to a port. */
function ask(
  to: { socketPath: string } | { port: number; ca?: Buffer | string; rejectUnauthorized?: boolean },
  method: string,
  path: string,
  body?: string,
): Promise<{ status: number; text: string }> {
  const length = body === undefined ? {} : { 'content-length': `${body.length}` }
  const isTls = 'rejectUnauthorized' in to
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      ...to,
      method,
      path,
      headers: length,
      agent: false as const,
    }
    const sent = (isTls ? tlsRequest : request)(options, (response) => {
      let text = ''
      response.setEncoding('latin1').on('data', (data) => {
        text += data
      })
      response.on('end', () => resolve({ status: response.statusCode!, text })).on('error', reject)
    })
    sent.on('error', reject).end(body)
  })
}

t.test('it serves over TCP and a Unix socket, and ends by a signal with its status', async (t) => {
  const dir = socketDirectory(t)
  const disk = join(dir, 'disk')
  writeFileSync(disk, Buffer.alloc(MIB, 'x'))
  const socket = join(dir, 'images')
  const { child, where, control, ended, stderr } = await start(
    t,
    ...['--listen', '127.0.0.1:0', '--listen', `unix:${socket}`],
  )
  t.match(where.listen[0], /^127\.0\.0\.1:[1-9]\d*$/)
  t.strictSame([where.listen[1], where.control], [`unix:${socket}`, `unix:${control}`])
  t.equal(statSync(control).mode & 0o777, 0o600)
  const port = Number(where.listen[0].split(':')[1])
  const ticket = { size: MIB, ops: ['read'], timeout: 60, url: `file://${disk}` }
  const put = await ask({ socketPath: control }, 'PUT', '/tickets/x', JSON.stringify(ticket))
  const { uuid } = JSON.parse(put.text)
  for (const to of [{ port }, { socketPath: socket }]) {
    t.equal(JSON.parse((await ask(to, 'OPTIONS', `/images/${uuid}`)).text).unix_socket, socket)
    t.equal((await ask(to, 'GET', `/images/${uuid}`)).text, 'x'.repeat(MIB))
    t.equal((await ask(to, 'GET', `/tickets/${uuid}`)).status, 404, 'tickets are elsewhere')
  }
  t.equal((await ask({ socketPath: control }, 'GET', `/images/${uuid}`)).status, 404)
  child.kill('SIGTERM')
  t.equal(await ended, 143)
  t.equal(stderr(), 'qcow2-backup: serve: interrupted\n')
  t.notOk(existsSync(control))
  t.notOk(existsSync(socket))
})

t.test('a request that is under way is finished; a new image is discarded', async (t) => {
  const dir = socketDirectory(t)
  const disk = join(dir, 'disk')
  writeFileSync(disk, Buffer.alloc(32 * MIB, 'x'))
  const { child, where, control, ended } = await start(t, '--listen', '127.0.0.1:0')
  const port = Number(where.listen[0].split(':')[1])
  const add = async (fields: object) => {
    const ticket = JSON.stringify({ size: 32 * MIB, timeout: 60, ...fields })
    return JSON.parse((await ask({ socketPath: control }, 'PUT', '/tickets/x', ticket)).text).uuid
  }
  const reads = await add({ ops: ['read'], url: `file://${disk}` })
  const writes = await add({ ops: ['write'], url: `file://${dir}/new.qcow2` })
  t.equal((await ask({ port }, 'PUT', `/images/${writes}`, 'data')).status, 200)
  const sent = request({ host: '127.0.0.1', port, path: `/images/${reads}`, agent: false }).end()
  const [response] = await once(sent, 'response')
  child.kill('SIGINT')
  let bytes = 0
  for await (const chunk of response) bytes += chunk.length
  t.equal(bytes, 32 * MIB)
  t.equal(await ended, 130)
  t.notOk(existsSync(join(dir, 'new.qcow2')))
})

t.test('HTTPS with a certificate; over the Unix socket without', async (t) => {
  const dir = socketDirectory(t)
  const certificates = makeCertificates(join(dir, 'tls'), 2)
  const at = (name: string) => join(certificates, name)
  const tls = ['--tls-cert', at('server-cert.pem'), '--tls-key', at('server-key.pem')]
  const listen = ['--listen', '127.0.0.1:0', '--listen', `unix:${dir}/images`]
  const { where, child, ended } = await start(t, ...tls, ...listen)
  const port = Number(where.listen[0].split(':')[1])
  const over = await ask({ port, rejectUnauthorized: false }, 'OPTIONS', '/images/*')
  t.equal(over.status, 200)
  t.equal((await ask({ socketPath: `${dir}/images` }, 'OPTIONS', '/images/*')).status, 200)
  await t.rejects(ask({ port }, 'OPTIONS', '/images/*'), 'no plain HTTP there')
  child.kill('SIGTERM')
  t.equal(await ended, 143)
})

t.test('a socket that a killed server left is taken over; one in use is not', async (t) => {
  const dir = socketDirectory(t)
  const path = join(dir, 'left')
  const { child, ended } = await start(t, '--listen', `unix:${path}`)
  const busy = ['serve', '--listen', `unix:${path}`, '--control', `unix:${dir}/c`]
  const refused = await spawnCli(busy)
  t.equal(refused.status, 1)
  t.match(refused.stderr, /^qcow2-backup: unix:.*left: another program listens there\n$/)
  child.kill('SIGKILL')
  await ended
  t.ok(existsSync(path))
  const again = await start(t, '--listen', `unix:${path}`)
  again.child.kill('SIGTERM')
  t.equal(await again.ended, 143)
  writeFileSync(path, 'a file')
  t.equal((await spawnCli(busy)).status, 1)
  t.ok(existsSync(path), 'a file is never removed')
})

t.test('wrong usage', async (t) => {
  const dir = socketDirectory(t)
  const control = `unix:${dir}/c`
  for (const [args, why] of [
    [[], /--listen: missing/],
    [['--listen', '127.0.0.1:0'], /--control: missing/],
    [['--listen', 'host', '--control', control], /--listen: 'host' is not an address/],
    [['--listen', 'h:70000', '--control', control], /--listen: .* not an address/],
    [['--listen', '127.0.0.1:0', '--control', '127.0.0.1:0'], /--control: .* Unix socket/],
    [['--listen', '127.0.0.1:0', '--control', 'unix:@c'], /--control: an abstract socket is open/],
    [['--listen', '127.0.0.1:0', '--control', control, '--tls-key', 'k'], /--tls-cert: missing/],
  ] as const) {
    const { status, stderr } = await runCli(['serve', ...args])
    t.equal(status, 2, args.join(' '))
    t.match(stderr, new RegExp(`^qcow2-backup: ${why.source}`))
  }
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      resolve((server.address() as { port: number }).port)
    })
    t.teardown(() => server.close())
  })
  const taken = await runCli(['serve', '--listen', `127.0.0.1:${port}`, '--control', control])
  t.equal(taken.status, 1)
  t.match(taken.stderr, /another program listens there/)
})
