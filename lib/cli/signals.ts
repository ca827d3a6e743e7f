import { constants } from 'node:os'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/** A signal stopped the run, which has been cleaned up; `cause` is what the run ended with. */
export class Interrupted extends Error {
  /** What a shell reports for the signal: 130 or 143. */
  readonly status: number

  constructor(status: number, cause: unknown) {
    super('interrupted', { cause })
    this.status = status
  }
}

/**
 * Runs something that SIGINT and SIGTERM may stop: the first one aborts `signal` and lets the work
 * clean up, a second one ends the process at once. A run that completes in spite of the signal has
 * completed.
 * @throws Interrupted if the work failed after a signal; else whatever the work throws
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  let status: number | undefined
  const stop = (name: (typeof SIGNALS)[number]) => {
    if (status !== undefined) process.exit(status)
    status = 128 + constants.signals[name]
    controller.abort()
  }
  for (const name of SIGNALS) process.on(name, stop)
  try {
    return await work(controller.signal)
  } catch (error) {
    throw status === undefined ? error : new Interrupted(status, error)
  } finally {
    for (const name of SIGNALS) process.off(name, stop)
  }
}
