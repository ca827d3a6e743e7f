/** The examples of library calls in the documentation run as they stand. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { restore, restoreMachine } from '../../lib/index.ts'
import { noise } from '../support/disks.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo } from '../support/qemu.ts'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))

/** What the documentation calls the reader's own: a disk of 8 MiB that changes after each backup of it. */
const VOLUME = `
import { writeFileSync } from 'node:fs'
const MIB = 2 ** 20
const bytes = Buffer.alloc(8 * MIB)
bytes.fill('first', MIB, 3 * MIB)
let asked = 0
const volume = {
  size: bytes.length,
  async *map() {
    if (asked++ > 0) bytes.fill('second', 2 * MIB, 3 * MIB)
    writeFileSync('disk-' + asked + '.raw', bytes)
    yield { offset: 0, length: MIB, allocated: false, changed: false }
    yield { offset: MIB, length: MIB, allocated: true, changed: false }
    yield { offset: 2 * MIB, length: MIB, allocated: true, changed: true }
    yield { offset: 3 * MIB, length: 5 * MIB, allocated: false, changed: false }
  },
  async read(start, length, { signal }) {
    signal.throwIfAborted()
    return bytes.subarray(start, start + length)
  },
}
`

/** The blocks of code of a document, in one language. */
function examples(document: string, language: 'js' | 'ts'): string[] {
  const text = readFileSync(join(ROOT, document), 'utf8')
  return [...text.matchAll(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 'gs'))].map(
    ([, code]) => code,
  )
}

/** Runs code as an ES module in a directory in which the package is installed. */
function runModule(directory: string, code: string) {
  mkdirSync(join(directory, 'node_modules'))
  symlinkSync(ROOT, join(directory, 'node_modules', 'qcow2-backup'))
  writeFileSync(join(directory, 'example.mjs'), code)
  return spawnSync(process.execPath, ['example.mjs'], { cwd: directory, encoding: 'utf8' })
}

for (const { document, language, restored } of [
  { document: 'README.md', language: 'js', restored: 'disk.raw' },
  { document: 'docs/library.md', language: 'ts', restored: 'restored.raw' },
] as const) {
  t.test(`the first example of ${document} backs up and restores disk.qcow2`, async (t) => {
    const directory = t.testdir()
    const bytes = noise(8 * 2 ** 20)
    writeFileSync(join(directory, 'bytes'), bytes)
    qemuImg('convert', '-O', 'qcow2', join(directory, 'bytes'), join(directory, 'disk.qcow2'))
    const run = runModule(directory, examples(document, language)[0])
    t.equal(run.status, 0, run.stderr)
    t.ok(readFileSync(join(directory, restored)).equals(bytes))
    t.equal(qemuImgInfo(join(directory, 'monday.qcow2'))['backing-filename'], 'sunday.qcow2')
  })
}

t.test('the example of a source of one’s own runs as it stands in docs/library.md', async (t) => {
  const directory = t.testdir()
  const example = examples('docs/library.md', 'js').filter((code) => code.includes('extents()'))
  t.equal(example.length, 1)
  const run = runModule(directory, VOLUME + example[0])
  t.equal(run.status, 0, run.stderr)

  const [sunday, monday] = ['sunday', 'monday'].map((day) => join(directory, `${day}.qcow2`))
  t.equal(qemuImgInfo(monday)['backing-filename'], 'sunday.qcow2')
  for (const [n, backup] of [sunday, monday].entries()) {
    t.equal(qemuImgCheck(backup).status, 0)
    const restored = join(directory, `restored-${n}.raw`)
    await restore(backup, restored)
    t.ok(readFileSync(restored).equals(readFileSync(join(directory, `disk-${n + 1}.raw`))))
  }
})

t.test('the service of docs/live.md backs up a machine, here of a disk at rest', async (t) => {
  const directory = t.testdir()
  const bytes = noise(2 ** 20)
  writeFileSync(join(directory, 'disk.raw'), bytes)
  const [example] = examples('docs/live.md', 'js')
  const domain = /'libvirt:web1', '\/srv\/backups', \{\n\s*quiesce: true,/
  t.match(example, domain)
  const code = example.replace(
    domain,
    "'disk:vda=disk.raw', 'repo', { name: 'web1', format: 'raw',",
  )
  const { status, stdout, stderr } = runModule(directory, code)
  t.equal(status, 0)
  t.equal(stderr, '')
  t.match(stdout, /^the instant is next.*\ngo on\n(.*\n)*100 %\n\w+ vda full/)
  await restoreMachine(join(directory, 'repo'), 'web1', join(directory, 'restored'), {
    disk: 'vda',
  })
  t.ok(readFileSync(join(directory, 'restored')).equals(bytes))
})
