/** `rebase` beside that of the installed qemu-img: what is printed, and what the image names then. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ours, type Printed, theirs } from '../support/parity.ts'
import { poke } from '../support/patch.ts'
import { qemuImg, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

/** Overlays `o`, `short` and `orphan`, over `base` and what is not there; other images to build on. */
function setUp(t: Test): string {
  const dir = t.testdir()
  const create = (name: string, ...args: string[]) =>
    qemuImg('create', '-q', '-f', 'qcow2', ...args.slice(1), join(dir, name), args[0])
  create('base', '4M')
  create('other', '6M')
  qemuIo(join(dir, 'base'), 'write -P 1 0 2M')
  qemuIo(join(dir, 'other'), 'write -P 1 0 1M', 'write -P 5 1M 512k', 'write -P 6 5M 64k')
  create('o', '4M', '-b', 'base', '-F', 'qcow2')
  qemuIo(join(dir, 'o'), 'write -P 7 128k 64k')
  create('orphan', '1M', '-u', '-b', 'gone', '-F', 'qcow2')
  create('old', '1M', '-o', 'compat=0.10')
  create('small', '1M', '-o', 'cluster_size=512')
  create('plain', '1M', '-o', `data_file=${join(dir, 'data')},data_file_raw=on`)
  writeFileSync(join(dir, 'raw'), Buffer.alloc(5000, 3))
  mkdirSync(join(dir, 'directory'))
  return dir
}

const FILES = ['o', 'orphan', 'old', 'small', 'raw', 'plain']

/** Runs a command in a directory, whose files are then as they were; what it printed and has made. */
async function outcome(
  dir: string,
  args: string[],
  by: (args: string[], cwd: string) => Printed | Promise<Printed>,
) {
  const used = FILES.filter((file) => args.includes(file))
  for (const file of used) copyFileSync(join(dir, file), join(dir, `${file}.kept`))
  const printed = await by(['rebase', ...args], dir)
  const files = used.map((file) => {
    const info = JSON.parse(run('qemu-img', ['info', '--output=json', join(dir, file)]).stdout)
    return [file, info['backing-filename'], info['backing-filename-format']]
  })
  for (const file of used) copyFileSync(join(dir, `${file}.kept`), join(dir, file))
  return { ...printed, files }
}

const LONG = 'x'.repeat(1100)

/** Separated by spaces; `''` is an empty one. */
const LINES = `
-u -b moved -F qcow2 o
-u -b moved -F raw o
-u -b ../elsewhere/moved -F raw -f qcow2 orphan
-u -b json:{} -F raw o
-u -b moved o
-u -b moved -F vmdk-or-so o
-u -b '' o
-u -b '' -F qcow2 o
-u -F raw o
-u o
-u -p -b moved -F qcow2 o
-u -p -q -b moved -F qcow2 o
-uqb moved -Fqcow2 o
-u -b o -F qcow2 o
-u -U -b moved -F qcow2 o
-u -b moved -F qcow2 raw
-u -b moved -F qcow2 -f raw raw
-u -f raw raw
-f raw -b '' raw
-u -b moved -F qcow2 old
-u -b moved -F qcow2 plain
-u -b ${LONG} -F qcow2 o
-u -b ${'y'.repeat(500)} -F qcow2 small
-u -b moved -F qcow2 -f bogus o
-u -b moved -F qcow2 nothing
-u -b moved -F qcow2 directory
-u -b moved -F qcow2 -t bogus o
-u -b moved -F qcow2 -T bogus o
-u -b moved -F qcow2 -t none -T directsync o
-u -b moved -F qcow2 -t bogus nothing
-u -b moved -F bogus nothing
-F qcow2 o
o

-u
-u o old
-b other -F qcow2 o
-b other -F bogus o
-b other o
-b nothing -F qcow2 o
-b directory -F qcow2 o
-b orphan -F qcow2 o
-b other -F qcow2 orphan
-b o -F qcow2 o
-b bogus:x -F raw o
-b '' o
-b base -F qcow2 o
-b base -F qcow2 old
-b raw -F raw o
-b other -F qcow2 plain
-b other -F qcow2 raw
-q -b other -F qcow2 o
--bogus o
-x o
-B raw -u -b moved o
--backing moved --backing-format raw --backing-unsafe o
--back moved -F raw -u o
--comp -u o
`

t.test('what is printed, and what is named then, is as with qemu-img', async (t) => {
  const dir = setUp(t)
  for (const line of LINES.trim().split('\n')) {
    const args = line
      .split(' ')
      .filter(Boolean)
      .map((word) => (word === "''" ? '' : word))
    const expected = await outcome(dir, args, theirs)
    t.strictSame(await outcome(dir, args, ours), expected, line.slice(0, 60))
  }
})

t.test('-c is refused where qemu-img has it', async (t) => {
  const dir = setUp(t)
  const args = ['rebase', '--qemu-version', '11.1', '-c', '-b', '', 'o']
  const { status, stderr } = await ours(args, dir)
  t.equal(status, 1)
  t.match(stderr, /^qemu-img: -c is not supported: what is copied is stored uncompressed\. .*\n$/)
})

t.test('a chain whose formats are not recorded is refused, with a way out', async (t) => {
  const dir = setUp(t)
  // The extension means nothing.
  poke(join(dir, 'o'), 112, 0x12345678)
  const args = ['-b', 'other', '-F', 'qcow2', 'o']
  const refused = await ours(['rebase', ...args], dir)
  t.match(refused, {
    status: 1,
    stderr:
      /^qemu-img: Could not open 'o': .*; record it with rebase -u -b \.\.\. -F FORMAT first\n$/,
  })
  t.equal((await ours(['rebase', '-u', '-b', 'base', '-F', 'qcow2', 'o'], dir)).status, 0)
  t.equal((await ours(['rebase', ...args], dir)).status, 0)
})
