/** Ends a run of this process between two of the system calls by which names change, for good. */
import { constants } from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { native } from '../../lib/native.ts'

const NAMING = ['rename', 'link', 'unlink', 'mkdir'] as const
const NATIVE = ['linkFile', 'exchangeNames'] as const

type Call = (...args: unknown[]) => unknown

/**
 * Runs something of which no call changes a name any more from the n-th such call on, as if the process had
 * been killed right before: cleaning up afterwards fails, too.
 * @param n from 1; a number that is never reached: it is not cut off
 * @returns whether it was, and how many calls there were
 */
export async function cutOffAt(
  n: number,
  run: () => Promise<unknown>,
): Promise<{ calls: number; isCut: boolean }> {
  let calls = 0
  const guarded = (call: Call, counts: (args: unknown[]) => boolean = () => true) =>
    function (this: unknown, ...args: unknown[]) {
      if (counts(args) && ++calls >= n) throw new Error('cut off')
      return call.apply(this, args)
    }
  const [files, addon] = [fs, native()] as unknown as Record<string, Call>[]
  const own = { ...Object.fromEntries([...NAMING, 'open'].map((name) => [name, files[name]])) }
  const ownNative = Object.fromEntries(NATIVE.map((name) => [name, addon[name]]))
  for (const name of NAMING) {
    const call = guarded(own[name])
    files[name] = async (...args) => await call(...args)
  }
  const makes = ([, flags]: unknown[]) => (Number(flags) & constants.O_CREAT) !== 0
  const open = guarded(own.open, makes)
  files.open = async (...args) => await open(...args)
  for (const name of NATIVE) addon[name] = guarded(ownNative[name])
  syncBuiltinESMExports()
  try {
    await run().catch(() => {})
    return { calls, isCut: calls >= n }
  } finally {
    Object.assign(files, own)
    Object.assign(addon, ownNative)
    syncBuiltinESMExports()
  }
}
