import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { run } from './support/qemu.ts'

const ROOT = dirname(createRequire(import.meta.url).resolve('qcow2-backup/package.json'))

/** The package without its addon, or with another in its place, run to back up a disk. */
function fullBackupWith(t: Test, addon?: (path: string) => void) {
  const dir = t.testdir()
  for (const name of ['dist', 'node_modules']) mkdirSync(join(dir, name))
  copyFileSync(join(ROOT, 'package.json'), join(dir, 'package.json'))
  run('cp', ['-r', join(ROOT, 'dist/lib'), join(dir, 'dist/lib')])
  for (const name of ['node-gyp-build', 'commander']) {
    symlinkSync(join(ROOT, 'node_modules', name), join(dir, 'node_modules', name))
  }
  if (addon) {
    mkdirSync(join(dir, 'build/Release'), { recursive: true })
    addon(join(dir, 'build/Release/qcow2_backup.node'))
  }
  writeFileSync(join(dir, 'disk.raw'), Buffer.alloc(65536, 1))
  const args = ['full', '-f', 'raw', 'disk.raw', 'b.qcow2']
  return run('env', [
    ...['-C', dir, '-u', 'NODE_OPTIONS', process.execPath, 'dist/lib/cli/main.cjs', ...args],
  ])
}

const REMEDY = /; build it with: npm rebuild qcow2-backup \(needs a C\+\+20 compiler\)\n$/

t.test('a missing addon is told in a line, with the remedy', async (t) => {
  const { status, stderr } = fullBackupWith(t)
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: native addon: is not built for linux-[^\n]*\n$/)
  t.match(stderr, REMEDY)
})

t.test('an addon that cannot be loaded is ADDON_MISSING', async (t) => {
  const { status, stderr } = fullBackupWith(t, (path) => writeFileSync(path, 'not a library'))
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: native addon: cannot be loaded \([^\n]*\n$/)
  t.match(stderr, REMEDY)
})

t.test('an addon of another version is ADDON_MISSING', async (t) => {
  const { status, stderr } = fullBackupWith(t, (path) => {
    writeFileSync(path.replace(/node$/, 'c'), SOURCE)
    const built = run('cc', [
      '-shared',
      '-fPIC',

      '-o',
      path,
      path.replace(/node$/, 'c'),
    ])
    t.equal(built.status, 0, built.stderr)
  })
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: native addon: is of another version \(it has no \w+\)[^\n]*\n$/)
  t.match(stderr, REMEDY)
})

/** An addon that exports nothing; its declarations are those of node_api.h. */
const SOURCE = `
void *napi_register_module_v1(void *env, void *exports) { return exports; }
int node_api_module_get_api_version_v1(void) { return 9; }
`
