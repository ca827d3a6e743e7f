/** Names that are not UTF-8, everywhere a name can stand: they are bytes, and stay so. */
import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { absolute, pathBytes, workingDirectory } from '../lib/files.ts'
import { fullBackup, listBitmaps, nameFromBytes, nameToBytes } from '../lib/index.ts'

const CLI = fileURLToPath(new URL('../lib/cli/main.cjs', import.meta.url))

/** Runs a bash script, in which `cli` is the program; Node itself could not hand over such names. */
function bash(cwd: string, script: string): string {
  const prologue = `set -e; cli() { '${process.execPath}' '${CLI}' "$@"; }\n`
  return execFileSync('bash', ['-c', prologue + script], { cwd, encoding: 'latin1', stdio: 'pipe' })
}

/** Two raw disks of 128 KiB in a directory of their own. */
function disks(t: Test): string {
  const directory = t.testdir()
  for (const [name, value] of [
    ['a.raw', 1],
    ['b.raw', 2],
  ] as const) {
    writeFileSync(join(directory, name), Buffer.alloc(131072, value))
  }
  return directory
}

t.test('two targets whose names differ in such a byte are two files', async (t) => {
  const directory = disks(t)
  bash(
    directory,
    String.raw`cli full -f raw a.raw $'vm\xe8' --manifest >&2
    cli full -f raw b.raw $'vm\xe9' --manifest --force >&2
    qemu-img compare -f raw -F qcow2 a.raw $'vm\xe8' >&2
    qemu-img compare -f raw -F qcow2 b.raw $'vm\xe9' >&2
    cli verify --manifest $'vm\xe8' $'vm\xe9' >&2`,
  )
  const names = readdirSync(directory, { encoding: 'buffer' }).map((name) =>
    name.toString('latin1'),
  )
  t.same(names.filter((name) => name.startsWith('vm')).sort(), [
    'vm\xe8',
    'vm\xe8.manifest.json',
    'vm\xe9',
    'vm\xe9.manifest.json',
  ])
})

t.test('a backing file is the one whose bytes the image has', async (t) => {
  bash(
    disks(t),
    String.raw`cp a.raw $'base\xe9'; cp b.raw $'base\xef\xbf\xbd'
    qemu-img create -q -f qcow2 -b $'base\xe9' -F raw top
    cli full top out >&2
    qemu-img compare -f raw -F qcow2 a.raw out >&2
    cli compare top out >&2`,
  )
  t.end()
})

t.test('every command works in such a directory, with such names', async (t) => {
  const printed = bash(
    disks(t),
    String.raw`mkdir $'d\xe9' $'other\xe9'; cd $'d\xe9'
    qemu-img convert -f raw -O qcow2 ../a.raw $'disk\xe9'
    qemu-img bitmap --add $'disk\xe9' $'b\xe9'
    qemu-img bitmap --add $'disk\xe9' $'b\xe8'
    cli full $'disk\xe9' $'full\xe9' >&2
    qemu-io -f qcow2 -c 'write -q -P 5 0 64k' $'disk\xe9'
    cli incremental $'disk\xe9' $'inc\xe9' --bitmap $'b\xe9' --backing $'full\xe9' >&2
    qemu-img compare $'disk\xe9' $'inc\xe9' >&2
    cli restore $'inc\xe9' $'raw\xe9' >&2
    qemu-img compare -f qcow2 -F raw $'inc\xe9' $'raw\xe9' >&2
    cli bitmap --add $'disk\xe9' plain >&2
    qemu-img info $'disk\xe9' | grep -c $'name: b' >&2
    cli chain $'disk\xe9' >&2
    cli extents $'disk\xe9' >&2; cli extents $'disk\xe9' --bitmap $'b\xe8' >&2
    cli snapshot $'disk\xe9' $'over\xe9' >&2
    qemu-img check -q $'over\xe9'
    cli diff $'over\xe9' $'full\xe9' --bitmap $'n\xe9' >&2
    cli commit $'over\xe9' --delete >&2
    test ! -e $'over\xe9'
    cp $'disk\xe9' $'../other\xe9/base'
    qemu-img create -q -f qcow2 -b $'../other\xe9/base' -F qcow2 far
    ! cli full far never 2>/dev/null
    cli full far out --allow-path $'../other\xe9' >&2
    qemu-img compare far out >&2
    version=$(qemu-img --version | sed -nE '1s/.*version ([0-9]+[.][0-9]+).*/\1/p')
    for command in info check map 'measure -O qcow2'; do
      cli $command --qemu-version $version $'disk\xe9' > ours; qemu-img $command $'disk\xe9' > theirs; cmp ours theirs >&2
    done
    cli parity $'disk\xe9' >&2
    ls | LC_ALL=C sort | tr '\n' ' '`,
  )
  t.equal(printed, 'disk\xe9 far full\xe9 inc\xe9 ours out raw\xe9 theirs ')
})

t.test('bitmaps that an edit does not touch keep the bytes of their names', async (t) => {
  const directory = disks(t)
  bash(
    directory,
    String.raw`qemu-img create -q -f qcow2 disk 1M
    qemu-img bitmap --add disk $'b\xe9'; qemu-img bitmap --add disk $'b\xe8'
    cli bitmap --add disk c; cli bitmap --remove disk $'b\xe8'
    qemu-img bitmap --enable disk $'b\xe9'; qemu-img check -q disk`,
  )
  const found = await listBitmaps(join(directory, 'disk'))
  t.same(found.map(({ name }) => nameToBytes(name).toString('latin1')).sort(), ['b\xe9', 'c'])
})

t.test('messages show such bytes, on one line', async (t) => {
  const directory = disks(t)
  const line = bash(directory, String.raw`cli full $'none\xe9' out 2>&1 || true`)
  t.equal(line, 'qcow2-backup: none\\xe9: no such file or directory\n')
  const name = nameFromBytes(Buffer.from(join(directory, 'none\xe9'), 'latin1'))
  await t.rejects(fullBackup(name, join(directory, 'out')), {
    code: 'IO',
    what: name,
    message: `${join(directory, 'none')}\\xe9: no such file or directory`,
  })
})

t.test('bytes of arguments that cannot be had are refused', async (t) => {
  const script = String.raw`
    process.title = 'x'
    process.argv = [process.argv[0], '${CLI}', 'info', 'b\ufffd']
    require('${CLI}')`
  const line = bash(
    disks(t),
    `'${process.execPath}' -e "$SCRIPT" 2>&1 || echo $?`.replace(
      '"$SCRIPT"',
      `'${script.replaceAll("'", "'\\''")}'`,
    ),
  )
  t.match(line, /^qcow2-backup: .*: is not UTF-8, and its bytes cannot be read from .*\n2\n$/)
})

t.test('names that no file can have are refused', async (t) => {
  for (const name of ['a\0b', 'a\ud800', 'a\udc00b', '\udcc3\udca9']) {
    t.throws(() => pathBytes(name), { code: 'USAGE' }, JSON.stringify(name))
    await t.rejects(fullBackup(name, 'out'), { code: 'USAGE' }, JSON.stringify(name))
  }
})

t.test('relative paths become absolute, without dots', async (t) => {
  t.equal(workingDirectory(), process.cwd())
  t.equal(absolute('/a/../b'), '/b')
  t.equal(absolute('a/./b'), join(process.cwd(), 'a/b'))
})

t.test('no other file of the library hands names to Node', async (t) => {
  const imports = /^import (?!type)\{?([^}]*?)\}? from 'node:fs(?:\/promises)?'/gms
  for (const entry of readdirSync('lib', { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.ts') || entry === 'files.ts') continue
    const names = [...readFileSync(join('lib', entry), 'utf8').matchAll(imports)]
      .flatMap(([, list]) => list.split(','))
      .map((name) => name.trim())
      .filter(
        (name) =>
          name !== '' &&
          !name.startsWith('type ') &&
          !['read', 'writeSync', 'constants'].includes(name),
      )
    t.same(names, [], entry)
  }
})
