import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { openFile } from '../../lib/image/file.ts'
import { lockFile, READING, SHARED_READING, WRITING } from '../../lib/image/locks.ts'
import { fullBackup, imageInfo, restore } from '../../lib/index.ts'
import { sameAsQemuImg, theirs } from '../support/parity.ts'
import { qemuImg } from '../support/qemu.ts'

/** Opens an image as a running virtual machine does; `args` are qemu-io's. */
async function hold(t: Test, path: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn('qemu-io', [...args, path], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => child.on('exit', resolve))
  t.teardown(async () => {
    child.stdin!.end('quit\n')
    await ended
  })
  // It prompts when it has the image.
  child.stdin!.write('length\n')
  await new Promise((resolve) => child.stdout!.once('data', resolve))
  while (!isLocked(path)) await sleep(20)
  return child
}

function isLocked(path: string): boolean {
  return readFileSync('/proc/locks', 'utf8').includes(`:${statSync(path).ino} `)
}

function image(dir: string): string {
  const path = join(dir, 'image')
  qemuImg('create', '-q', '-f', 'qcow2', path, '1M')
  return path
}

t.test('an image that a process writes to is refused without force-share', async (t) => {
  const dir = t.testdir()
  const path = image(dir)
  await hold(t, path, '-f', 'qcow2')
  for (const command of ['info', 'check', 'map', 'measure -O qcow2']) {
    await sameAsQemuImg(t, dir, [...command.split(' '), 'image'])
    await sameAsQemuImg(t, dir, [...command.split(' '), '-U', 'image'])
  }
  await sameAsQemuImg(t, dir, ['compare', 'image', 'image'])
  await sameAsQemuImg(t, dir, ['check', '-r', 'all', 'image'])
  await t.rejects(fullBackup(path, join(dir, 'backup')), {
    code: 'IN_USE',
    message: /image: is open for writing in another process; [^\n]*$/,
    hint: 'forceShare',
  })
  t.notOk(existsSync(join(dir, 'backup')))
  await fullBackup(path, join(dir, 'backup'), { forceShare: true })
  await t.rejects(restore(join(dir, 'backup'), path, { force: true }), {
    code: 'IN_USE',
    message: /image: is in use by another process$/,
  })
})

t.test('an image that a process reads is read, but not replaced', async (t) => {
  const dir = t.testdir()
  const path = image(dir)
  await hold(t, path, '-r', '-f', 'qcow2')
  await sameAsQemuImg(t, dir, ['info', 'image'])
  await sameAsQemuImg(t, dir, ['check', 'image'])
  await sameAsQemuImg(t, dir, ['check', '-r', 'all', 'image'])
  await fullBackup(path, join(dir, 'backup'))
  await t.rejects(fullBackup(join(dir, 'backup'), path, { force: true }), { code: 'IN_USE' })
})

t.test('a raw disk that a process writes to is described, but not copied', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'raw')
  writeFileSync(path, '')
  truncateSync(path, 2 ** 20)
  await hold(t, path, '-f', 'raw')
  await sameAsQemuImg(t, dir, ['info', '-f', 'raw', 'raw'])
  await sameAsQemuImg(t, dir, ['map', '-f', 'raw', 'raw'])
  await t.rejects(
    fullBackup(path, join(dir, 'backup')),
    { code: 'IN_USE' },
    'as convert refuses it',
  )
  t.equal(theirs(['convert', '-f', 'raw', '-O', 'qcow2', path, join(dir, 'c')]).status, 1)
})

t.test('what we lock, QEMU respects', async (t) => {
  const dir = t.testdir()
  const path = image(dir)
  const file = await openFile(path)
  t.teardown(() => file.handle.close())
  lockFile(file.handle, path, SHARED_READING)
  t.equal(theirs(['check', '-r', 'all', path]).status, 0, 'sharing hinders nobody')
  lockFile(file.handle, path, READING)
  t.equal(theirs(['check', path]).status, 0, 'others may read')
  t.match(theirs(['check', '-r', 'all', path]), { status: 1, stderr: /Failed to get "write" lock/ })
  lockFile(file.handle, path, WRITING)
  t.match(theirs(['info', path]), { status: 1, stderr: /Failed to get shared "write" lock/ })
  await t.rejects(imageInfo(path), { message: /Failed to get shared "write" lock/ })
})
