/** How long something is waited for. */
export interface WaitOptions {
  /** Milliseconds; `Infinity`: for ever. */
  timeoutMs?: number
  signal?: AbortSignal
}

/** The longest that Node's timers wait; more would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** As `setTimeout`, but `Infinity` and what is too long for it mean never: they return undefined. */
export function startTimer(timeoutMs: number, fire: () => void): NodeJS.Timeout | undefined {
  return timeoutMs > MAX_TIMER_MS ? undefined : setTimeout(fire, timeoutMs)
}
