/** `backup libvirt:DOMAIN --repo DIR`, with a guest that writes all the time. */
import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../support/cli.ts'
import { isCleanExt4, makeExt4 } from '../support/file-systems.ts'
import { startLibvirtGuest } from '../support/libvirt-guest.ts'
import { startLibvirtd, type TestDisk } from '../support/libvirtd.ts'
import { run } from '../support/qemu.ts'

t.setTimeout(900_000)

t.test('a libvirt domain into a repository, and back', async (t) => {
  const libvirtd = await startLibvirtd(t)
  const dir = t.testdir()
  const repo = join(dir, 'repo')
  const disks: TestDisk[] = [
    { dev: 'vda', path: join(libvirtd.directory, 'vda'), format: 'qcow2' },
    { dev: 'vdb', path: join(libvirtd.directory, 'vdb'), format: 'raw' },
  ]
  for (const { path, format } of disks) makeExt4(path, 64 * 2 ** 20, { format })
  const guest = await startLibvirtGuest(t, libvirtd, 'web1', disks)
  await guest.run('mkdir -p /a /b; mount /dev/disk/vda /a; mount /dev/disk/vdb /b')
  await guest.startAgent()
  const load =
    'i=0; while :; do i=$((i+1)); dd if=/dev/urandom of=/a/$((i%20)) bs=64k count=8; echo $i >/b/n; sync; done'
  await guest.run(`(${load}) >/dev/null 2>&1 &`)
  while (!/state='connected'/.test(await guest.virsh('dumpxml'))) {}
  const cli = async (...args: string[]) => {
    const connect = /^(backup|machine)$/.test(args[0]) ? ['--connect', libvirtd.connect] : []
    return await runCli([...args, ...connect])
  }
  const backup = async (...args: string[]) => {
    const { status, stdout, stderr } = await cli(
      ...['backup', 'libvirt:web1', '--repo', repo, '--json', '--no-progress', ...args],
    )
    t.equal(status, 0, stderr)
    return JSON.parse(stdout || '{}')
  }

  const first = await backup('--quiesce', '--checkpoint', 'p1')
  t.match(first, { machine: 'web1', point: 'p1', disks: [{ kind: 'full' }, { kind: 'full' }] })
  const second = await backup('--checkpoint', 'p2')
  t.match(second.disks, [
    { name: 'vda', kind: 'incremental', parent: 'p1' },
    { name: 'vdb', kind: 'full', reason: /raw image holds no bitmaps/ },
  ])
  t.equal((await guest.virsh('checkpoint-list', '--name')).trim(), 'p2')

  // Interrupted once the point in time is there, and killed.
  for (const [signal, expected] of [
    ['SIGTERM', { status: 143 }],
    ['SIGKILL', { signal: 'SIGKILL' }],
  ] as const) {
    const ended = await runCli(
      [
        ...['backup', 'libvirt:web1', '--repo', repo, '--connect', libvirtd.connect],
        ...['--progress', 'json', '--checkpoint', 'lost', '--rate-limit', '64K'],
      ],
      { onStderr: (_, child) => void child.kill(signal) },
    )
    t.match(ended, expected, ended.stderr)
    const names = (await guest.virsh('checkpoint-list', '--name')).trim().split('\n').sort()
    t.strictSame(names, signal === 'SIGTERM' ? ['p2'] : ['lost', 'p2'])
    const { stdout } = await cli('machine', 'libvirt:web1', '--json')
    const kinds = JSON.parse(stdout).leftovers.map(({ kind }: { kind: string }) => kind)
    t.strictSame(kinds, signal === 'SIGTERM' ? [] : ['job', 'checkpoint', 'file'])
  }
  const third = await backup('--checkpoint', 'p3', '--quiesce')
  t.match(third.disks[0], { kind: 'incremental', parent: 'p2' })
  t.match(third.notes, [/cleaned what a run before left .*checkpoint lost/])

  process.kill(guest.pid(), 'SIGKILL')
  while (!/shut off/.test(await guest.virsh('domstate'))) {}
  const fourth = await backup('--checkpoint', 'p4')
  t.match(fourth.disks[0], { kind: 'full', reason: /p3.* cannot be used/ })
  t.equal((await guest.virsh('checkpoint-list', '--name')).trim(), 'p4')
  const stopped = await backup('--checkpoint', 'p5')
  t.match(stopped.disks[0], { kind: 'incremental', parent: 'p4', dataBytes: 0 })
  for (const point of ['p1', 'p2', 'p3', 'p4', 'p5']) {
    for (const { dev } of disks) {
      const target = join(dir, `${point}-${dev}`)
      const { status, stderr } = await cli(
        ...['restore', '--repo', repo, `web1@${point}`, '--disk', dev, target],
      )
      t.equal(status, 0, stderr)
      t.ok(isCleanExt4(target), `${dev} at ${point}`)
      if (point === 'p3') t.notMatch(run('dumpe2fs', ['-h', target]).stdout, /needs_recovery/)
    }
  }
})
