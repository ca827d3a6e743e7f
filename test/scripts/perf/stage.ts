import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Stage } from '../../../scripts/perf/servers/server.ts'

/** A stage for servers that lasts as long as the test; its directory is short enough for sockets. */
export function testStage(t: Test, signal: AbortSignal = new AbortController().signal): Stage {
  const scratch = mkdtempSync(join(tmpdir(), 'perf-'))
  t.teardown(() => rmSync(scratch, { recursive: true, force: true }))
  return { scratch, signal, atEnd: (end) => t.teardown(end) }
}
