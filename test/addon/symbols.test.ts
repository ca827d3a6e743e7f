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

t.test('runs the libraries that it was compiled with', async (t) => {
  const header = (file: string, pattern: RegExp) =>
    [...readFileSync(`/usr/include/${file}`, 'utf8').matchAll(pattern)].map(([, n]) => n).join('.')
  t.strictSame(native().versions(), {
    zlib: header('zlib.h', /#define ZLIB_VERSION "(.*)"/g),
    deflate: header('libdeflate.h', /#define LIBDEFLATE_VERSION_STRING\s+"(.*)"/g),
    zstd: header('zstd.h', /#define ZSTD_VERSION_(?:MAJOR|MINOR|RELEASE) +(\d+)/g),
  })
})
