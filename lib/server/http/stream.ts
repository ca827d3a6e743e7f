import type { IncomingMessage, ServerResponse } from 'node:http'

/** The client takes too long, or is gone, or has no right to more: nobody is there to be told. */
export class Gone extends Error {}

/**
 * Sends pieces as the client takes them.
 * @param options.ms how long it may take for one
 * @param options.onSent called with the bytes of each piece when it is on its way
 * @throws Gone; whatever the pieces throw
 */
export async function sendPieces(
  response: ServerResponse,
  pieces: AsyncIterable<Uint8Array | string>,
  { ms, signal, onSent }: { ms: number; signal: AbortSignal; onSent?: (bytes: number) => void },
): Promise<void> {
  for await (const piece of pieces) {
    if (response.destroyed || signal.aborted) throw new Gone('the client is gone')
    onSent?.(piece.length)
    await written(response, piece, ms, signal)
  }
  response.end()
}

/** Writes a piece; resolves when it has left, and its memory may be used for something else. */
function written(
  response: ServerResponse,
  piece: Uint8Array | string,
  ms: number,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error?: Error) => {
      clearTimeout(timer)
      response.off('close', gone)
      signal.removeEventListener('abort', stopped)
      if (error) reject(error)
      else resolve()
    }
    const gone = () => end(new Gone('the client is gone'))
    const stopped = () => end(new Gone('the ticket was cancelled'))
    const timer = setTimeout(() => end(new Gone('the client is too slow')), ms)
    response.on('close', gone)
    signal.addEventListener('abort', stopped)
    response.write(piece, (error) => {
      end(error ? new Gone('the client is gone') : undefined)
    })
  })
}

const PIECE = 256 * 1024

/**
 * The body of a request, in pieces of 256 KiB, each in memory of its own.
 * @param options.ms how long the client may take for one
 * @throws Gone if it does not come whole
 */
export async function* bodyPieces(
  request: IncomingMessage,
  { length, ms, signal }: { length: number; ms: number; signal: AbortSignal },
): AsyncGenerator<Buffer> {
  // Only while the client is waited for.
  let timer: NodeJS.Timeout | undefined
  const wait = () => {
    timer = setTimeout(() => request.destroy(new Gone('the client is too slow')), ms)
  }
  const stop = () => request.destroy(new Gone('the ticket was cancelled'))
  signal.addEventListener('abort', stop)
  try {
    let left = length
    let piece = Buffer.allocUnsafe(Math.min(PIECE, left))
    let filled = 0
    wait()
    for await (const chunk of request as AsyncIterable<Buffer>) {
      for (let taken = 0; taken < chunk.length; ) {
        const count = Math.min(chunk.length - taken, piece.length - filled)
        chunk.copy(piece, filled, taken, taken + count)
        taken += count
        filled += count
        if (filled < piece.length) continue
        left -= filled
        clearTimeout(timer)
        yield piece
        wait()
        piece = Buffer.allocUnsafe(Math.min(PIECE, left))
        filled = 0
      }
    }
    if (left > 0) throw new Gone('the body is shorter than its Content-Length')
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', stop)
  }
}
