/** The addon's file itself. */
import { createRequire } from 'node:module'
import { dirname } from 'node:path'

const require = createRequire(import.meta.url)

/** The file that `native()` loads. */
export function addonPath(): string {
  const root = dirname(require.resolve('qcow2-backup/package.json'))
  return require('node-gyp-build').path(root)
}
