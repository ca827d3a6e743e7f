import { native } from '../native.ts'

/**
 * Ends the process at once, after the clean-up. process.exit() would wait for the
 * threads of libuv's pool, one of which may hang in a system call for good.
 */
export function endProcess(status: number): void {
  // Removes temporary names.
  process.emit('exit', status)
  try {
    native().exitNow(status)
  } catch {
    // Without the addon nothing was written, and hardly anything can hang.
    process.exit(status)
  }
}
