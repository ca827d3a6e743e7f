import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg, qemuIo } from '../../support/qemu.ts'

t.test('diff prints its result for people, and as JSON', async (t) => {
  const cwd = t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk'), '64M')
  qemuImg('create', '-q', '-f', 'raw', join(cwd, 'old'), '64M')
  qemuIo(join(cwd, 'disk'), 'write -P 1 1M 5k')
  const told = await runCli(['diff', 'disk', 'old', '--bitmap', 'b'], { cwd })
  t.strictSame(
    [told.status, told.stdout, told.stderr],
    [0, "disk: bitmap 'b', 64 KiB a bit, 64 KiB dirty\n", ''],
  )
  const more = ['--granularity', '4K', '--enable', '--json', '--progress', 'json']
  const json = await runCli(['diff', 'disk', 'old', '--bitmap', 'c', ...more], { cwd })
  t.strictSame(JSON.parse(json.stdout), {
    image: 'disk',
    bitmap: 'c',
    granularity: 4096,
    dirtyBytes: 8192,
    unreadable: [],
  })
  t.match(JSON.parse(json.stderr.trim().split('\n').at(-1)!), {
    phase: 'compare',
    position: 64 * 2 ** 20,
    size: 64 * 2 ** 20,
  })
  const none = await runCli(['diff', 'disk', 'old'], { cwd })
  t.equal(none.status, 2)
  t.match(none.stderr, /^qcow2-backup: --bitmap: missing/)
})
