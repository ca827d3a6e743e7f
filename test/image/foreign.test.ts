/** Files of formats that are not read: refused in every place, with the option of that place. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { editBitmap } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { qemuImg } from '../support/qemu.ts'

const VMDK = Buffer.concat([Buffer.from('KDMV'), Buffer.alloc(65532)])

function setUp(t: Test): string {
  const cwd = t.testdir()
  writeFileSync(join(cwd, 'foreign'), VMDK)
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk'), '64K')
  qemuImg('bitmap', '--add', join(cwd, 'disk'), 'b')
  return cwd
}

t.test('the option of that place takes the bytes as they are', async (t) => {
  const cases = [
    ['full foreign out', '--format raw'],
    ['extents foreign', '--format raw'],
    ['diff disk foreign --bitmap d', '--baseline-format raw'],
    ['incremental disk out --bitmap b --backing foreign', '--backing-format raw'],
    ['snapshot foreign out', '--backing-format raw'],
  ]
  for (const [command, option] of cases) {
    const cwd = setUp(t)
    const refused = await runCli(command.split(' '), { cwd })
    t.equal(refused.status, 1, command)
    const line = new RegExp(
      `^qcow2-backup: foreign: is .*VMDK.*, which is not supported; .*; ${option} takes its bytes as they are\\n$`,
    )
    t.match(refused.stderr, line, command)
    const taken = await runCli([...command.split(' '), ...option.split(' ')], { cwd })
    t.equal(taken.status, 0, `${command} ${option}: ${taken.stderr}`)
  }
})

t.test('where there is no such option, none is offered', async (t) => {
  const cwd = setUp(t)
  for (const command of ['commit foreign', 'restore foreign out', 'verify foreign']) {
    const { status, stderr, stdout } = await runCli(command.split(' '), { cwd })
    t.equal(status, 1, command)
    t.match(stderr + stdout, /foreign/, command)
    t.notMatch(stderr, /as they are|--baseline-format/, command)
  }
})

t.test('a bitmap is merged from no foreign image, and no option is said to help', async (t) => {
  const dir = setUp(t)
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('image'), '1M')
  qemuImg('bitmap', '--add', at('image'), 'b')
  const merge = (from: string) =>
    editBitmap(at('image'), 'b', [{ kind: 'merge', source: 'b', from }])
  const refused = await merge(at('foreign')).catch((error) => error)
  t.match(refused, { code: 'UNSUPPORTED', what: at('foreign') })
  t.equal(refused.hint, undefined)
})

t.test('an error about a bitmap that is merged names the image that it is of', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  for (const [name, size] of [
    ['image', '1M'],
    ['large', '2M'],
  ]) {
    qemuImg('create', '-q', '-f', 'qcow2', at(name), size)
    qemuImg('bitmap', '--add', at(name), 'b')
  }
  const merge = editBitmap(at('image'), 'b', [{ kind: 'merge', source: 'b', from: at('large') }])
  await t.rejects(merge, { code: 'BAD_BITMAP', what: at('large') })
})
