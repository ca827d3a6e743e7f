import { BackupError, isBackupError } from '../errors.ts'
import { GuestAgent } from './guest-agent.ts'
import { QmpError } from './qmp-error.ts'

/** How long freezing may take: the guest writes back what it has cached. */
const FREEZE_TIMEOUT_MS = 60_000
/** How long each attempt to thaw may take; the second is made on a new connection. */
const THAW_TIMEOUT_MS = 20_000

/** How file systems are frozen. */
export interface FreezeGuestOptions {
  /** Default 60,000. */
  freezeTimeoutMs?: number
  /** Of each of two attempts, default 20,000. */
  thawTimeoutMs?: number
  /** Cancels the freezing. Thawing is never cancelled. */
  signal?: AbortSignal
}

/**
 * Has a guest's file systems frozen while something is done, and always thawed: also when freezing
 * took too long or was cancelled, for the agent may do it yet.
 * @param address of the agent, `PATH` of a Unix socket, or `HOST:PORT`
 * @param body what to do, in far less than the ten seconds after which Windows thaws by itself
 * @returns what `body` returns, and how many file systems were frozen
 * @throws BackupError IO if the agent refuses or does not answer, and if they did not stay frozen or
 * could not be thawed: then what `body` made is there, for the caller to undo; ABORTED; what `body`
 * throws
 */
export async function whileFrozen<T>(
  address: string,
  body: () => Promise<T>,
  options: FreezeGuestOptions = {},
): Promise<{ value: T; fileSystems: number }> {
  const { freezeTimeoutMs = FREEZE_TIMEOUT_MS, thawTimeoutMs = THAW_TIMEOUT_MS, signal } = options
  const agent = await GuestAgent.connect(address, { signal })
  let value: T
  let fileSystems: number
  try {
    const limits = { timeoutMs: freezeTimeoutMs, signal }
    fileSystems = countOf(await agent.execute('guest-fsfreeze-freeze', undefined, limits))
    value = await body()
    // An agent that found none to freeze does not count itself as frozen.
    if (fileSystems > 0) await requireFrozen(agent, thawTimeoutMs)
  } catch (error) {
    if (cannotFreeze(error)) {
      agent.close()
      throw error
    }
    const still = await thawAtLast(agent, thawTimeoutMs)
    throw still ? alsoFrozen(error, still) : error
  }
  const still = await thawAtLast(agent, thawTimeoutMs)
  if (still) throw still
  return { value, fileSystems }
}

/** The agent has no such command, or its administrator has blocked it. */
function cannotFreeze(error: unknown): boolean {
  return error instanceof QmpError && error.qmpClass === 'CommandNotFound'
}

/**
 * Thaws on this connection, or else on a new one, and closes it.
 * @returns undefined, or why the guest may still be frozen
 */
async function thawAtLast(agent: GuestAgent, timeoutMs: number): Promise<BackupError | undefined> {
  try {
    await thaw(agent, timeoutMs)
  } catch {
    agent.close()
    try {
      await thawAnew(agent.address, timeoutMs)
    } catch (cause) {
      const why = `the guest's file systems may still be frozen: ${(cause as Error).message}`
      return new BackupError('IO', agent.address, why, { errno: errnoOf(cause), cause })
    }
  } finally {
    agent.close()
  }
}

/** An error that says both. */
function alsoFrozen(error: unknown, still: BackupError): BackupError {
  if (!isBackupError(error)) {
    return new BackupError('IO', still.what, still.why, { cause: error })
  }
  const { code, what, why, errno, cause = error } = error
  return new BackupError(code, what, `${why}; ${still.why}`, { errno, cause })
}

async function thawAnew(address: string, timeoutMs: number): Promise<void> {
  const agent = await GuestAgent.connect(address, { timeoutMs })
  try {
    await thaw(agent, timeoutMs)
  } finally {
    agent.close()
  }
}

/** @throws BackupError IO unless the guest is thawed then */
async function thaw(agent: GuestAgent, timeoutMs: number): Promise<void> {
  let refusal: QmpError | undefined
  try {
    await agent.execute('guest-fsfreeze-thaw', undefined, { timeoutMs })
  } catch (error) {
    if (!(error instanceof QmpError)) throw error
    refusal = error
  }
  const state = await stateOf(agent, timeoutMs)
  if (state !== 'thawed') {
    throw (
      refusal ?? new BackupError('IO', 'guest-fsfreeze-thaw', `the state is '${state}' after it`)
    )
  }
}

/** The agent was started again meanwhile, or Windows did not hold the writes back any longer. */
async function requireFrozen(agent: GuestAgent, timeoutMs: number): Promise<void> {
  if ((await stateOf(agent, timeoutMs)) === 'frozen') return
  const why = "the guest's file systems did not stay frozen until the point in time was there"
  throw new BackupError('IO', agent.address, why)
}

async function stateOf(agent: GuestAgent, timeoutMs: number): Promise<unknown> {
  return await agent.execute('guest-fsfreeze-status', undefined, { timeoutMs })
}

function countOf(answer: unknown): number {
  return typeof answer === 'number' ? answer : 0
}

function errnoOf(error: unknown): string | undefined {
  return isBackupError(error) ? error.errno : undefined
}
