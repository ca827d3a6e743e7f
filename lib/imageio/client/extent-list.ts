import { setTimeout as delay } from 'node:timers/promises'
import { Advance } from '../../extents/advance.ts'
import { log } from '../../log.ts'
import { askAbilities } from './abilities.ts'
import { BadList, type Context, ExtentParser, type ListedExtent } from './extent-parser.ts'
import { isPassing } from './failure.ts'
import type { ServedImage } from './image.ts'
import { RunQueue } from './run-queue.ts'

/** Extents that are kept for those who use them: 32 MiB. More are asked for again. */
const MAX_RUNS = 4 * 2 ** 20
/** Servers say nothing before they have looked at the whole disk: so many times their usual patience. */
export const SCAN_PATIENCE = 20
/** As often asked again in a row, after waits that double. */
const RETRIES = 5
const FIRST_WAIT_MS = 100
/** Looking at the disk does not renew a ticket, which may live for a minute only. */
const RENEWAL_MS = 20_000
/** What is judged together: so much of the list, bytes, or what comes in so long. */
const STRETCH = 16384
const STRETCH_MS = 1000

export interface ListOptions {
  context: Context
  signal: AbortSignal
  /** For tests. */
  maxRuns?: number
}

/** Ends a request for extents of which enough are known for now. */
class Enough extends Error {}

/**
 * The extents of an image, ordered and contiguous from 0 to its size, in batches. They are received as fast
 * as they come, however slowly they are used: a server cuts off a client that lets it wait.
 * @throws Refusal, BadList, and what else ImageConnection.send throws
 */
export async function* listExtents(
  image: ServedImage,
  { context, signal, maxRuns = MAX_RUNS }: ListOptions,
): AsyncGenerator<readonly ListedExtent[]> {
  const stop = new AbortController()
  const ending = AbortSignal.any([signal, stop.signal])
  let position = 0
  let tries = 0
  for (let isComplete = false; !isComplete; ) {
    const queue = new RunQueue(position)
    let failure: unknown
    const receiving = receive(image, context, queue, maxRuns, ending)
      .catch((error) => {
        failure = error
      })
      .finally(() => queue.end())
    let isUsedUp = false
    try {
      for (let batch = await queue.next(); batch; batch = await queue.next()) yield batch
      isUsedUp = true
    } finally {
      // Whoever uses them may want no more.
      if (!isUsedUp) stop.abort(new Enough())
      await receiving
    }
    if (queue.position > position) tries = 0
    position = queue.position
    isComplete = failure === undefined
    if (isComplete || failure instanceof Enough) continue
    if (signal.aborted || !isPassing(failure) || tries >= RETRIES) throw failure
    tries++
    log('imageio', () => {
      const { displayUrl } = image.address
      return `${displayUrl}: extents cut off at ${position}: asked again, ${tries} of ${RETRIES} times`
    })
    await delay(FIRST_WAIT_MS * 2 ** (tries - 1), undefined, { signal: ending })
  }
}

/** Receives the list from the queue's position on. Throws Enough where there is no more room. */
async function receive(
  image: ServedImage,
  context: Context,
  queue: RunQueue,
  maxRuns: number,
  signal: AbortSignal,
): Promise<void> {
  const { connections, timeoutMs, size = 0 } = image
  const from = queue.position
  const parser = new ExtentParser(context, size)
  const pace = new Pace(timeoutMs)
  const renewing =
    connections.all.length > 1 ? setInterval(() => renew(image), RENEWAL_MS) : undefined
  try {
    await connections.use((connection) =>
      connection.send({
        method: 'GET',
        target: `/extents?context=${context}`,
        patienceMs: SCAN_PATIENCE * timeoutMs,
        slow: true,
        signal,
        onData(chunk) {
          const extents = parser.add(chunk)
          queue.add(extents, from)
          if (!pace.add(chunk.length, parser.end, extents.length) && parser.end < size) {
            throw new BadList(`the list of extents makes almost no progress at ${parser.end}`)
          }
          if (queue.runs > maxRuns && parser.end < size) throw new Enough()
        },
      }),
    )
    parser.finish()
  } finally {
    clearInterval(renewing)
  }
}

/** Whether a list gets anywhere, however a server cuts it into pieces. */
class Pace {
  readonly #advance: Advance
  #since = performance.now()
  #body = 0
  #runs = 0
  #end = 0

  constructor(timeoutMs: number) {
    this.#advance = new Advance(timeoutMs)
  }

  /**
   * @param body bytes of the list that came
   * @param end of the extents so far
   * @param runs extents in it
   */
  add(body: number, end: number, runs: number): boolean {
    this.#body += body
    this.#runs += runs
    const now = performance.now()
    if (this.#body < STRETCH && now - this.#since < STRETCH_MS) return true
    const isEnough = this.#advance.add(end - this.#end, this.#runs)
    this.#since = now
    this.#end = end
    this.#body = 0
    this.#runs = 0
    return isEnough
  }
}

/** OPTIONS counts as a use of the ticket. */
function renew({ connections }: ServedImage): void {
  connections.use((connection) => askAbilities(connection)).catch(() => {})
}
