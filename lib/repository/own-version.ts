import { createRequire } from 'node:module'

/** This program's, for records. */
export function ownVersion(): string {
  return createRequire(import.meta.url)('qcow2-backup/package.json').version
}
