import { isBackupError } from '../../errors.ts'
import type { MachineFolder } from '../machine-folder.ts'
import type { DiskRecord } from '../record.ts'
import {
  readVerified,
  rememberVerified,
  type VerifiedImage,
  type VerifiedImages,
} from '../verified.ts'

/** Time between two times that outcomes are stored: a killed run loses no more. */
const STORE_MS = 5000

/** What is remembered of a machine's images, with what a run adds to it. */
export class Outcomes {
  readonly #folder: MachineFolder
  readonly #before: VerifiedImages
  /** Of this run. */
  readonly #now = new Map<string, VerifiedImage>()
  #isStored = true
  #storedAt = performance.now()

  static async of(folder: MachineFolder): Promise<Outcomes> {
    return new Outcomes(folder, await readVerified(folder))
  }

  private constructor(folder: MachineFolder, before: VerifiedImages) {
    this.#folder = folder
    this.#before = before
  }

  /** The last one of an image with the content that is recorded now. */
  last({ image, content }: DiskRecord): VerifiedImage | undefined {
    const last = this.#now.get(image) ?? this.#before.get(image)
    return last?.checksum === content.checksum ? last : undefined
  }

  async add({ image, content }: DiskRecord, same: boolean): Promise<void> {
    const time = new Date().toISOString()
    this.#now.set(image, { time, same, checksum: content.checksum })
    this.#isStored = false
    if (performance.now() - this.#storedAt >= STORE_MS) await this.store()
  }

  /**
   * Stores what is new. Never fails.
   * @returns why it could not be
   */
  async store(): Promise<string | undefined> {
    if (this.#isStored) return undefined
    this.#storedAt = performance.now()
    try {
      await rememberVerified(this.#folder, this.#now)
      this.#isStored = true
      return undefined
    } catch (error) {
      if (!isBackupError(error)) throw error
      return error.message
    }
  }
}
