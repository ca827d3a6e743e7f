/** A request that is refused: what the client is told. */
export class HttpError extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

export function badRequest(why: string): HttpError {
  return new HttpError(400, why)
}

/** Whether there is no such ticket, or it ended, or does not allow that: a client is not to tell apart by status. */
export function forbidden(why: string): HttpError {
  return new HttpError(403, why, { connection: 'close' })
}

/** @param size bytes that there are; undefined where the header makes no sense */
export function badRange(why: string, size?: number): HttpError {
  return new HttpError(416, why, size === undefined ? {} : { 'content-range': `bytes */${size}` })
}
