import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg } from '../../support/qemu.ts'

t.test('snapshot prints its result for people, and as JSON', async (t) => {
  const cwd = t.testdir()
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'disk'), '64M')
  qemuImg('bitmap', '--add', join(cwd, 'disk'), 'b')
  const told = await runCli(['snapshot', 'disk', 'one'], { cwd })
  t.strictSame(told, {
    ...told,
    status: 0,
    stdout: "one: complete\n  disk 64 MiB, over disk\n  bitmaps that continue: 'b'\n",
    stderr: '',
  })
  const json = await runCli(['snapshot', '--json', '--cluster-size', '4K', 'disk', 'two'], { cwd })
  t.match(JSON.parse(json.stdout), { overlay: 'two', backing: 'disk', bitmaps: ['b'], notes: [] })
  const again = await runCli(['snapshot', 'disk', 'one'], { cwd })
  t.equal(again.status, 1)
  t.match(again.stderr, /^qcow2-backup: one: exists; --force replaces it\n$/)
})
