import type { ImageConnection } from './connection.ts'

/** The connections to a server, each for one thing at a time. Those that never are needed are not made. */
export class Connections {
  readonly #idle: ImageConnection[] = []
  readonly #all: ImageConnection[] = []
  readonly #waiting: ((connection: ImageConnection) => void)[] = []
  /** Called when one is free that nobody waits for. */
  onFree: () => void = () => {}

  /** @param most of them */
  constructor(make: () => ImageConnection, most: number) {
    for (let i = 0; i < most; i++) this.#all.push(make())
    // Those that were used last are used first, so that no more are made than are needed.
    this.#idle.push(...this.#all.toReversed())
  }

  /** All of them, to be sent something that each has to know. */
  get all(): readonly ImageConnection[] {
    return this.#all
  }

  /** How many are free. */
  get free(): number {
    return this.#idle.length
  }

  /** One that is free, if there is one. It is to be given back. */
  take(): ImageConnection | undefined {
    return this.#idle.pop()
  }

  /** Gives one back. */
  give(connection: ImageConnection): void {
    const next = this.#waiting.shift()
    if (next) {
      next(connection)
    } else {
      this.#idle.push(connection)
      this.onFree()
    }
  }

  /** Does something on one, when one is free. */
  async use<T>(work: (connection: ImageConnection) => Promise<T>): Promise<T> {
    const connection =
      this.take() ?? (await new Promise<ImageConnection>((resolve) => this.#waiting.push(resolve)))
    try {
      return await work(connection)
    } finally {
      this.give(connection)
    }
  }

  /** Ends the requests under way, too. Never fails. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map((connection) => connection.close()))
  }
}
