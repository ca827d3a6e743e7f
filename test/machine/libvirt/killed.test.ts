/** Runs that are killed at any command: the next one finds what they left, and no change is lost. */
import { spawn } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { effort, someOf } from '../../support/effort.ts'
import { startLibvirtd } from '../../support/libvirtd.ts'
import { type VirshFault, wrapVirsh } from '../../support/virsh-wrapper.ts'
import { back, freeze, MIB, newRun, nothingLeft, sameContent, setUp } from './domains.ts'

t.setTimeout(1_200_000)

const PROGRAM = fileURLToPath(new URL('one-run.js', import.meta.url))

/** Runs it to its end, whatever that is. */
function oneRun(args: readonly string[], path: string): Promise<{ pid: number; stdout: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [PROGRAM, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, PATH: path },
    })
    let stdout = ''
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text
    })
    // Not `close`: what virsh waits for goes on for a moment.
    child.on('exit', () => resolve({ pid: child.pid!, stdout }))
  })
}

t.test('runs that are killed', async (t) => {
  const libvirtd = await startLibvirtd(t)
  for (const end of effort(['succeed'] as const, ['succeed', 'fail'] as const)) {
    t.test(`at each command of a run that is to ${end}`, async (t) => {
      const { machine, domain, disks, dir } = await setUp(t, libvirtd, end)
      const first = await freeze(machine, 'p0', [{ name: 'vda', checkpoint: 'p0' }])
      await back(first.disks[0], join(dir, '0.qcow2'))
      await first.succeed({ remove: [] })
      let wrappers = 0
      const wrapped = (...faults: VirshFault[]) => {
        const directory = join(dir, `${wrappers++}`)
        mkdirSync(directory)
        return wrapVirsh(directory, faults)
      }
      const args = (point: string, remove: string) => [
        ...[libvirtd.connect, domain.name, newRun(), 'p0', point, remove, end],
      ]
      const whole = wrapped()
      await oneRun(args('whole', ''), whole.path)
      const commands = whole.commands()
      t.ok(commands.includes('backup-begin') && commands.includes('domjobabort'), `${commands}`)
      let last = end === 'succeed' ? 'whole' : ''
      await nothingLeft(t, domain, machine, ['p0', last].filter(Boolean))

      const begin = commands.indexOf('backup-begin')
      let written = 0
      for (const [i, command] of commands.entries()) {
        for (const kill of someOf(['before', 'after'] as const, i)) {
          // Before the job begins there is nothing to leave but a directory.
          // In a quick run every fourth command.
          if (effort(i < begin - 1 || i % 4 > 0, false)) continue
          const title = `${kill} ${command}, number ${i + 1}`
          await domain.io('vda', `write -P ${i + 10} ${(20 + written++) % 60}M 1M`)
          const { path } = wrapped({ at: i + 1, kill })
          const point = `${kill}-${i + 1}`
          const { pid, stdout } = await oneRun(args(point, last), path)
          const isStored = stdout.includes('stored')
          const left = await machine.leftovers()
          const cleaned = await machine.clean({ isStored: () => isStored })
          if (!isStored) t.strictSame(cleaned, left, `${title}: all that was left is cleaned`)
          const names = (await domain.virsh('checkpoint-list', '--name')).split('\n')
          const old = last !== '' && names.includes(last) ? [last] : []
          if (isStored)
            t.ok(names.includes(point), `${title}: the checkpoint of a stored backup stays`)
          else if (last !== '') t.ok(old.length, `${title}: the last checkpoint stays`)
          await nothingLeft(t, domain, machine, ['p0', ...old, ...(isStored ? [point] : [])], pid)
          const query = '{"execute":"query-named-block-nodes"}'
          t.notMatch(await domain.virsh('qemu-monitor-command', query), /qcow2-backup-/)
          if (isStored) {
            for (const name of old) await domain.virsh('checkpoint-delete', name)
            last = point
          }
        }
      }
      const reference = await domain.snapshot(disks[0], join(dir, 'raw'))
      const point = await freeze(machine, 'end', [{ name: 'vda', since: 'p0' }])
      const { dataBytes } = await back(point.disks[0], join(dir, '1.qcow2'), join(dir, '0.qcow2'))
      await point.succeed({ remove: [] })
      t.equal(dataBytes, Math.min(written, 60) * MIB, 'all changes are in the next backup')
      sameContent(t, join(dir, '1.qcow2'), reference)
    })
  }
  t.end()
})
