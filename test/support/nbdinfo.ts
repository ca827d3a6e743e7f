import { run } from './qemu.ts'

/** One run of `nbdinfo --map --json`. */
export interface StatusEntry {
  offset: number
  length: number
  /** Flags. */
  type: number
}

/** `nbdinfo --map=CONTEXT --json URI`: a server's block status in one metadata context. */
export function nbdinfoMap(uri: string, context = 'base:allocation'): StatusEntry[] {
  const { status, stdout, stderr } = run('nbdinfo', [`--map=${context}`, '--json', uri])
  if (status !== 0)
    throw new Error(`nbdinfo --map=${context} ${uri} ended with ${status}: ${stderr}`)
  return JSON.parse(stdout)
}
