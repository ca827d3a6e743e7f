import { ioError } from '../../errors.ts'
import type { FileHandle } from '../../files.ts'
import { native } from '../../native.ts'
import { IN_PLACE } from './in-place.ts'
import type { Location } from './location.ts'
import type { Target } from './target.ts'

/**
 * A block device, which is written in place.
 * @param handle open for reading and writing, exclusively, and locked; closed by `discard`
 */
export function openDeviceTarget({ path, directory }: Location, handle: FileHandle): Target {
  const capacity = native().deviceSize(handle.fd)
  return {
    ...IN_PLACE,
    kind: 'device',
    path,
    store: { kind: 'file', fd: handle.fd },
    handle,
    inPlace: true,
    capacity,
    async sizes() {
      return { fileSize: capacity, allocatedBytes: capacity }
    },
    located: async () => path,
    async sync() {
      await handle.sync().catch((error) => {
        throw ioError(path, error)
      })
    },
    async discard() {
      await handle.close().catch(() => {})
      await directory.close().catch(() => {})
    },
  }
}
