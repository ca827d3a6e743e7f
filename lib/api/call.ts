/** Wraps the work of every public function: see `Call`. */
import type { CustomTarget } from '../copy/target/custom-target.ts'
import { abortedError, BackupError, ioError, isBackupError, messageOf } from '../errors.ts'
import type { Phase, Progress } from '../progress.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { Turns } from '../turns.ts'

type OnProgress = (progress: Progress) => void

/** One call of a public function. Faults in the caller's own callbacks are noted here. */
export class Call {
  readonly #what: string
  readonly #signal: AbortSignal | undefined
  /** Notes for the result. */
  readonly notes: string[] = []

  /** @param what name for messages: the call's target, or its only image */
  constructor(what: string, signal?: AbortSignal) {
    this.#what = what
    this.#signal = signal
  }

  /**
   * Does the work of the call.
   * @throws BackupError, whatever the work throws
   */
  async run<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      if (this.#signal?.aborted) throw abortedError(this.#what, this.#signal)
      return await work()
    } catch (error) {
      throw this.#familiar(error)
    }
  }

  /** Like `run`, for work that yields results one by one; checks the signal before each. */
  async *each<T>(work: () => AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
    try {
      if (this.#signal?.aborted) throw abortedError(this.#what, this.#signal)
      const turns = new Turns(this.#what, this.#signal)
      for await (const one of work()) {
        const pause = turns.step()
        if (pause) await pause
        yield one
      }
    } catch (error) {
      throw this.#familiar(error)
    }
  }

  /**
   * A guarded callback. An exception in it ends the call, as a BackupError; a rejection of its
   * promise comes too late for that and becomes a note.
   */
  callback<A extends unknown[], R>(
    name: string,
    call: ((...args: A) => R) | undefined,
  ): ((...args: A) => R) | undefined {
    if (!call) return undefined
    return (...args) => {
      let result: R
      try {
        result = call(...args)
      } catch (error) {
        throw callbackError(name, error)
      }
      Promise.resolve(result).catch((error) => this.#note(`${name}()`, error))
      return result
    }
  }

  /** A callback that is awaited. If it throws or rejects, the call ends. */
  taker<A extends unknown[]>(name: string, call: (...args: A) => void | Promise<void>) {
    return async (...args: A): Promise<void> => {
      try {
        await call(...args)
      } catch (error) {
        throw callbackError(name, error)
      }
    }
  }

  /** `onProgress` for work that reports guest bytes done, and all. */
  positions(phase: Phase, onProgress: OnProgress | undefined) {
    const tell = this.callback('onProgress', onProgress)
    const started = performance.now()
    return (
      tell &&
      ((position: number, size: number) => {
        const elapsedSeconds = (performance.now() - started) / 1000
        tell({ phase, position, size, dataBytes: 0, elapsedSeconds })
      })
    )
  }

  /** A source whose close() cannot hide how the call ended. */
  source(source: string | CustomSource): string | CustomSource {
    if (typeof source === 'string') return source
    return {
      name: source.name,
      size: source.size,
      extents: () => source.extents(),
      read: (start, length, signal) => source.read(start, length, signal),
      ...(source.discard && {
        discard: (start: number, length: number) => source.discard!(start, length),
      }),
      close: once(async () => {
        try {
          await source.close?.()
        } catch (error) {
          this.#note(`close() of ${source.name}`, error)
        }
      }),
    }
  }

  /** A target that is closed once. */
  target<T extends string | CustomTarget>(target: T): T {
    if (typeof target === 'string') return target
    return {
      name: target.name,
      size: target.size,
      write: (offset, data, signal) => target.write(offset, data, signal),
      ...(target.zero && {
        zero: (offset: number, length: number, signal: AbortSignal) =>
          target.zero!(offset, length, signal),
      }),
      flush: (signal) => target.flush(signal),
      close: once(async () => await target.close?.()),
    } satisfies CustomTarget as CustomTarget as T
  }

  /** A result with the notes of this call. */
  async noted<R extends { notes?: readonly string[] }>(result: R): Promise<R> {
    // Rejections up to now have been reported when this resolves.
    await new Promise(setImmediate)
    return this.notes.length === 0
      ? result
      : { ...result, notes: [...(result.notes ?? []), ...this.notes] }
  }

  #note(who: string, error: unknown): void {
    const note = `${who} failed: ${messageOf(error)}`
    if (!this.notes.includes(note)) this.notes.push(note)
  }

  #familiar(error: unknown): BackupError {
    const signal = this.#signal
    if (isBackupError(error)) {
      if (error.code !== 'ABORTED' || !signal?.aborted) return error
      return error.cause === signal.reason ? error : abortedError(error.what, signal)
    }
    if (signal?.aborted) return abortedError(this.#what, signal)
    if ((error as NodeJS.ErrnoException | undefined)?.syscall) return ioError(this.#what, error)
    return new BackupError('INTERNAL', this.#what, messageOf(error), { cause: error })
  }
}

/** A function that does its work when it is called first, and nothing after that. */
function once(work: () => Promise<void>): () => Promise<void> {
  let isDone = false
  return async () => {
    if (isDone) return
    isDone = true
    await work()
  }
}

/** Wraps an exception of one of the caller's functions. */
export function callbackError(name: string, error: unknown): BackupError {
  if (isBackupError(error)) return error
  return new BackupError('CALLBACK', `${name}()`, messageOf(error), { cause: error })
}
