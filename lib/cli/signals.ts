/**
 * SIGHUP, SIGINT and SIGTERM. The first import of the program, so that from its first moment on a signal ends
 * it with the right exit status.
 */

// Numbers of the signals; importing node:os for them would be done before the handlers are there.
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const

/** A signal stopped the run, which has been cleaned up; `cause` is the run's error. */
export class Interrupted extends Error {
  /** Exit status that a shell reports for the signal: 129, 130 or 143. */
  readonly status: number

  constructor(status: number, cause: unknown) {
    super('interrupted', { cause })
    this.status = status
  }
}

/** Ends the process at once; replaced once the addon can be asked. */
let end = (status: number): void => process.exit(status)

/** Says how the process is ended when its threads may hang. */
export function setEnd(how: (status: number) => void): void {
  end = how
}

const controller = new AbortController()
/** The current run; the first signal lets it clean up. */
let working = 0
let done = false
/** Of the first signal. */
let received: number | undefined

/**
 * Nothing made yet: ends at once. Work under way: it is aborted, and cleans up; a second signal ends
 * the process whatever hangs. If the work is complete, the result counts and the status is its own.
 */
function onSignal(name: keyof typeof SIGNALS): void {
  const first = received === undefined
  received ??= 128 + SIGNALS[name]
  if (working > 0 && first) controller.abort(new Error(`the program received ${name}`))
  else if (working > 0) end(received)
  else if (!done) end(received)
  else if (!first) end(Number(process.exitCode ?? 0))
}

/** Installs the handlers. */
export function handleSignals(): void {
  for (const name of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) {
    process.on(name, () => onSignal(name))
  }
}

/** The signal that a running work is to stop at; undefined while none runs. */
export function runningSignal(): AbortSignal | undefined {
  return working > 0 ? controller.signal : undefined
}

/** Whether a signal came. */
export function wasInterrupted(): boolean {
  return received !== undefined
}

/**
 * Runs work that a signal may stop: the first one aborts `signal` and lets the work
 * clean up, a second one ends the process at once. A run that completes in spite of the signal has
 * completed.
 * @throws Interrupted if the work failed after a signal; else whatever the work throws
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  working++
  try {
    return await work(controller.signal)
  } catch (error) {
    throw received === undefined ? error : new Interrupted(received, error)
  } finally {
    working--
    done = true
  }
}
