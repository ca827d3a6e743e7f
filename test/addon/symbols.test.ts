/** The addon brings its own libraries, and neither shows them to others nor takes those of Node. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { native } from '../../lib/native.ts'
import { addonPath } from '../support/addon.ts'
import { run } from '../support/qemu.ts'

/** The addon's dynamic symbols, without those that may be missing. */
function symbols(which: '--defined-only' | '--undefined-only'): string[] {
  const { status, stdout, stderr } = run('nm', ['--dynamic', '--format=posix', which, addonPath()])
  if (status !== 0) throw new Error(stderr)
  const rows = stdout.split('\n').map((line) => line.split(' '))
  return rows.flatMap(([name, type]) => (name && type !== 'w' ? [name.replace(/@.*/, '')] : []))
}

t.test('exports the two entry points of Node-API and nothing else', async (t) => {
  t.strictSame(symbols('--defined-only').sort(), [
    'napi_register_module_v1',
    'node_api_module_get_api_version_v1',
  ])
})

t.test('needs no symbol of the libraries that it was linked with', async (t) => {
  const foreign =
    /^(adler32|compress|crc32|deflate|inflate|zlib|ZSTD|HUF|FSE|XXH|libdeflate|io_uring|uv_)/
  t.strictSame(
    symbols('--undefined-only').filter((name) => foreign.test(name)),
    [],
  )
  t.ok(symbols('--undefined-only').includes('napi_create_external'), 'nm was understood')
})

t.test(
  'is hardened: what the linker and the compiler can do against damaged memory is on',
  async (t) => {
    const readelf = run('readelf', ['--wide', '--program-headers', '--dynamic', addonPath()])
    t.equal(readelf.status, 0, readelf.stderr)
    t.match(readelf.stdout, /^ *GNU_RELRO /m, 'relocated data becomes read-only')
    t.match(
      readelf.stdout,
      /\(FLAGS\).*\bBIND_NOW\b/,
      'the whole of it, since all is bound at once',
    )
    t.match(readelf.stdout, /\(FLAGS_1\).*\bNOW\b/)
    t.match(readelf.stdout, /^ *GNU_STACK .* RW +0x/m, 'the stack cannot be executed')
    t.notMatch(readelf.stdout, /^ *LOAD .* RWE /m, 'nothing is writable and executable')
    t.notMatch(readelf.stdout, /\(TEXTREL\)/)
    const imported = symbols('--undefined-only')
    t.ok(imported.includes('__stack_chk_fail'), 'stack protector')
    const fortified = imported.filter((name) => /^__\w+_chk$/.test(name))
    t.ok(fortified.includes('__memcpy_chk'), 'fortified functions of libc')
  },
)

t.test('runs the libraries that it was compiled with', async (t) => {
  const header = (file: string, pattern: RegExp) =>
    [...readFileSync(`/usr/include/${file}`, 'utf8').matchAll(pattern)].map(([, n]) => n).join('.')
  t.strictSame(native().versions(), {
    zlib: header('zlib.h', /#define ZLIB_VERSION "(.*)"/g),
    deflate: header('libdeflate.h', /#define LIBDEFLATE_VERSION_STRING\s+"(.*)"/g),
    zstd: header('zstd.h', /#define ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE) +(\d+)/g),
  })
})
