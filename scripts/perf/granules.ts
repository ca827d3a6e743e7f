import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { DataExtent } from './layout.ts'
import { succeed } from './process.ts'
import type { Stage } from './servers/server.ts'

/** The source, in the checkout: this file runs from its dist/scripts/perf. */
const SOURCE = resolve(import.meta.dirname, '../../../scripts/perf/granules.c')

/** Operation on each granule, number of connections, and requests on each. */
export interface GranuleWork {
  operation: 'read' | 'write' | 'zero'
  connections: number
  requests: number
}

/** Reading as fast as libnbd can; more connections or requests did not make it faster. */
export const READ_FAST: GranuleWork = { operation: 'read', connections: 4, requests: 64 }
/** One after the other, so that an image's clusters come in the order of the granules. */
export const WRITE_IN_ORDER: GranuleWork = { operation: 'write', connections: 1, requests: 1 }
export const ZERO_FAST: GranuleWork = { operation: 'zero', connections: 1, requests: 64 }

/**
 * Compiles the small C program that does nothing but that, through libnbd.
 * @param granules of equal length, in the order in which they are asked
 * @returns the command; to write, its input are the granules' bytes
 */
export async function granuleCommand(
  { operation, connections, requests }: GranuleWork,
  uri: string,
  granules: DataExtent[],
  { scratch, signal }: Stage,
): Promise<string[]> {
  const program = join(scratch, 'granules')
  await succeed(['cc', '-O2', '-o', program, SOURCE, '-lnbd', '-pthread'], signal)
  const list = join(scratch, `granules.${operation}`)
  await writeFile(
    list,
    BigUint64Array.from(granules, ({ offset }) => BigInt(offset)),
  )
  const [{ length }] = granules
  return [program, operation, uri, ...[length, connections, requests].map(String), list]
}
