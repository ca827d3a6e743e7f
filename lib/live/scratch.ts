import type { FrozenDisk } from '../machine/machine.ts'

/** Time between two looks. */
const LOOK_MS = 250

/** Watches how much the temporary images that keep a point in time take. */
export class ScratchWatch {
  readonly #disks: readonly FrozenDisk[]
  readonly #peaks = new Map<string, number>()
  readonly #timer: NodeJS.Timeout
  #looking: Promise<Map<string, number>> | undefined

  constructor(disks: readonly FrozenDisk[]) {
    this.#disks = disks.filter(({ scratchBytes }) => scratchBytes)
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    this.#timer.unref()
    if (this.#disks.length === 0) clearInterval(this.#timer)
  }

  /** The figures of each disk, of which there are some. Never fails. */
  async finish(): Promise<Map<string, { peakBytes: number; finalBytes: number }>> {
    clearInterval(this.#timer)
    await this.#looking
    const now = await this.#look()
    return new Map(
      [...now].map(([name, finalBytes]) => [
        name,
        { peakBytes: this.#peaks.get(name)!, finalBytes },
      ]),
    )
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** One at a time. */
  async #look(): Promise<Map<string, number>> {
    this.#looking ??= this.#ask().finally(() => {
      this.#looking = undefined
    })
    return await this.#looking
  }

  async #ask(): Promise<Map<string, number>> {
    const found = new Map<string, number>()
    for (const { name, scratchBytes } of this.#disks) {
      // Figures are worth no failure.
      const bytes = await scratchBytes!().catch(() => undefined)
      if (bytes === undefined) continue
      found.set(name, bytes)
      this.#peaks.set(name, Math.max(bytes, this.#peaks.get(name) ?? 0))
    }
    return found
  }
}
