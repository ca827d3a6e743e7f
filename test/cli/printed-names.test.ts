/** Names in what people read: a line break or a command for the terminal in one is shown, not obeyed. */
import { renameSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { run } from '../../lib/cli/run.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

t.setTimeout(120_000)

const EVIL = 'a\nb\x1b[31m\u202e'
const SHOWN = 'a\\x0ab\\x1b[31m\\u{202e}'

/** What a run prints, of both streams. */
async function printed(args: string[]): Promise<{ status: number; text: string }> {
  let text = ''
  const take = (more: string) => {
    text += more
  }
  const status = await run(() => args, {
    stdout: async (more) => take(more),
    stderr: take,
    canDraw: false,
    stdoutIsTerminal: false,
    writeBytes: async () => {},
    columns: 80,
    interruptible: (work) => work(new AbortController().signal),
  })
  return { status, text }
}

t.test('no command prints a name with characters that a terminal obeys', async (t) => {
  process.chdir(t.testdir())
  makeRaw('raw', 2 ** 20, [{ at: 4096, bytes: noise(4096) }])
  qemuImg('create', '-q', '-f', 'qcow2', 'disk', '1M')
  qemuIo('disk', 'write -P 1 0 64k')
  qemuImg('bitmap', '--add', 'disk', EVIL)
  renameSync('disk', EVIL)
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', `./${EVIL}`, `${EVIL}top`)
  qemuImg('bitmap', '--add', `${EVIL}top`, EVIL)
  const cases: [args: string[], status: number][] = [
    [['full', EVIL, `${EVIL}full`, '--manifest', '--verify'], 0],
    [['incremental', EVIL, `${EVIL}inc`, '--bitmap', EVIL, '--backing', `${EVIL}full`], 0],
    [['restore', `${EVIL}inc`, `${EVIL}.qcow2`], 0],
    [['extents', `${EVIL}gone`], 1],
    [['chain', `${EVIL}top`], 0],
    [['chain', `${EVIL}full`, '-f', 'raw'], 0],
    [['diff', EVIL, 'raw', '--bitmap', `${EVIL}2`], 0],
    [['snapshot', `${EVIL}top`, `${EVIL}new`], 0],
    [['commit', `${EVIL}new`], 0],
    [['verify', `${EVIL}full`, EVIL], 0],
    [['verify', `${EVIL}full`, `${EVIL}gone`], 1],
    [['parity', EVIL], 0],
    [['bitmap', 'list', EVIL], 0],
  ]
  for (const [args, status] of cases) {
    const result = await printed(args)
    t.equal(result.status, status, `${args[0]}: ${result.text}`)
    t.ok(result.text.includes(SHOWN), `${args[0]} names it`)
    for (const line of result.text.split('\n')) t.notMatch(line, /[\p{Cc}\p{Cf}]/u, line)
    // None is the rest of a name that was broken.
    t.notMatch(result.text, /^b\\x1b/m, args[0])
  }
})

t.test('a difference that parity prints is escaped, too', async (t) => {
  process.chdir(t.testdir())
  qemuImg('create', '-q', '-f', 'qcow2', 'disk', '1M')
  const version = 'echo qemu-img version 7.2.0'
  const script = `#!/bin/sh\nif [ "$1" = --version ]; then ${version}; else printf 'red \\033[31m\\n'; fi\n`
  writeFileSync('fake-qemu-img', script, { mode: 0o755 })
  const { status, text } = await printed(['parity', 'disk', '--against', './fake-qemu-img'])
  t.equal(status, 1)
  t.match(text, /^-red \\x1b\[31m$/m)
  for (const line of text.split('\n')) t.notMatch(line, /[\p{Cc}\p{Cf}]/u, line)
})
