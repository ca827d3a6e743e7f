/** scripts/newer-qemu where it fetches nothing: what it makes, other tests run with. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { run } from '../support/qemu.ts'

const SCRIPT = resolve('scripts/newer-qemu')

t.test('what it cannot do is refused in one line', async (t) => {
  const dir = t.testdir({ other: { file: '' } })
  for (const [args, status, why] of [
    [[], 2, /^usage: scripts\/newer-qemu SUITE FOLDER/],
    [['forky'], 2, /^usage: /],
    [['forky', join(dir, 'q'), 'gui'], 1, /gui: not a group; there are system and libnbd/],
    [['../forky', join(dir, 'q')], 1, /\.\.\/forky: not the name of a suite/],
    [['forky', join(dir, 'other')], 1, /other: holds something else/],
  ] as const) {
    const told = run(SCRIPT, args)
    t.match(told, { status, stdout: '', stderr: why }, args.join(' '))
    t.equal(told.stderr.trim().split('\n').length, 1, told.stderr)
  }
  t.strictSame(readdirSync(dir), ['other'], 'nothing was made')
})

t.test('a folder that holds what is asked for is taken as it is', async (t) => {
  const dir = t.testdir({ q: { holds: 'forky qemu-utils qemu-system-common\n' } })
  t.match(run(SCRIPT, ['forky', join(dir, 'q')]), { status: 0, stdout: '', stderr: '' })
})

t.test('a mirror that fails is told in one line, and leaves nothing behind', async (t) => {
  const dir = t.testdir()
  const bin = join(dir, 'bin')
  mkdirSync(bin)
  // What apt-get says where there is no network.
  const apt = `#!/bin/sh
case $1 in
  indextargets) . /etc/os-release; echo "$VERSION_CODENAME main http://mirror.invalid/debian/" ;;
  *) echo 'Reading...'; echo 'E: Failed to fetch http://mirror.invalid/' >&2; exit 100 ;;
esac
`
  writeFileSync(join(bin, 'apt-get'), apt)
  chmodSync(join(bin, 'apt-get'), 0o755)
  const told = run('env', [`PATH=${bin}:${process.env.PATH}`, SCRIPT, 'forky', join(dir, 'q')])
  t.match(told, { status: 1 })
  const debian = /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8'))
  const why = debian ? 'forky: E: Failed to fetch http://mirror.invalid/' : 'not a Debian system'
  t.match(told.stderr, why)
  t.equal(told.stderr.split('\n').length, 2, 'one line')
  t.strictSame(readdirSync(dir), ['bin'])
})
