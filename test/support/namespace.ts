/** Shell scripts in a mount namespace of their own: their mounts go when they end. */
import { run, type ToolResult } from './qemu.ts'

/** Root may mount; everybody else may where they are root, in a user namespace. */
const UNSHARE = process.getuid!() === 0 ? ['--mount'] : ['--mount', '--user', '--map-root-user']

/**
 * Runs a script with bash, which ends at the first command that fails and is not tested for.
 * @param args its `$1`, `$2` …
 */
export function inMountNamespace(script: string, ...args: string[]): ToolResult {
  return run('unshare', [...UNSHARE, 'bash', '-euc', script, 'bash', ...args])
}
