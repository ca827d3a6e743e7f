/** A `virsh` that stands before the real one on the path, which notes what is run and can fail at a command. */
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { run } from './qemu.ts'

/** What happens at a command. */
export type VirshFault =
  /** Kills who runs it, before or after it has done its work. */
  | { at: number; kill: 'before' | 'after' }
  /** Succeeds without doing anything, or fails. */
  | { command: string; fails: boolean }

export interface VirshWrapper {
  /** For the environment. */
  readonly path: string
  /** The commands so far, but the waits for events. */
  commands(): string[]
}

/** @param directory in which it is made */
export function wrapVirsh(directory: string, faults: readonly VirshFault[] = []): VirshWrapper {
  const real = run('sh', ['-c', 'command -v virsh']).stdout.trim()
  const log = join(directory, 'virsh.log')
  const lines = faults.map((fault) => {
    if ('command' in fault) {
      return `[ "$command" = ${fault.command} ] && { echo "error: as the test has it" >&2; exit ${fault.fails ? 1 : 0}; }`
    }
    const kill = 'kill -9 $PPID; exit 1'
    const steps = fault.kill === 'before' ? kill : `${real} "$@"; ${kill}`
    return `[ "$number" = ${fault.at} ] && { ${steps}; }`
  })
  const script = `#!/bin/sh
# virsh -q -c URI COMMAND ...
command=$4
[ "$command" = event ] && exec ${real} "$@"
echo "$command" >>${log}
number=$(wc -l <${log})
${lines.join('\n')}
exec ${real} "$@"
`
  writeFileSync(join(directory, 'virsh'), script)
  chmodSync(join(directory, 'virsh'), 0o755)
  return {
    path: `${directory}${delimiter}${process.env.PATH}`,
    commands: () => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').filter(Boolean) : []),
  }
}
