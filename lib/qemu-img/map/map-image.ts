import { StatusError } from '../../block-status/status.ts'
import type { ControlOptions } from '../../options.ts'
import { nodeOf, textOf } from '../chain-node.ts'
import { QemuImgError } from '../messages.ts'
import { closeChain, type OpenContentOptions, openChain } from '../qemu-chain.ts'
import { type MapEntry, type MapRange, mapNode } from './map.ts'

export interface MapOptions extends OpenContentOptions, MapRange, ControlOptions {
  /** Called when the image is open. */
  onOpen?: () => void | Promise<void>
}

/**
 * Where the guest bytes of an image and of all below it are: batches of ordered, contiguous
 * entries, neighbours with equal status merged. Of an empty range one entry of length 0.
 * @param name as the user gave it
 * @throws QemuImgError
 */
export async function* mapImage(
  name: string,
  options: MapOptions = {},
): AsyncGenerator<readonly MapEntry[]> {
  const chain = await openChain(name, options)
  try {
    await options.onOpen?.()
    yield* mapNode(nodeOf(chain.images, { warn: options.warn }), { ...options, name })
  } catch (error) {
    if (!(error instanceof StatusError)) throw error
    options.warn?.(textOf(error))
    const message = 'Could not read file metadata: Input/output error'
    throw new QemuImgError(message, 1, { cause: error })
  } finally {
    await closeChain(chain)
  }
}
