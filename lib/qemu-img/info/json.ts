import type { LuksHeader } from '../../format/luks.ts'
import { SECTOR_SIZE } from '../../format/qcow2/constants.ts'
import type { Snapshot } from '../../format/qcow2/snapshots.ts'
import { roundUp } from '../../units.ts'
import type { JsonValue } from '../json.ts'
import { atLeast, type QemuVersion } from '../version.ts'
import type { BitmapInfo, DescribedImage, ImageInfo, Qcow2Info } from './info.ts'
import type { BlockLimits } from './limits.ts'

type JsonObject = { readonly [key: string]: JsonValue | undefined }

/**
 * The description of an image as QEMU's JSON. Keys are in the order of the buckets of its
 * hash tables.
 */
export function infoToJson(info: DescribedImage, version: QemuVersion): JsonObject {
  return {
    limits: info.limits && limitsToJson(info.limits.image),
    children: atLeast(version, 8, 0) ? [{ name: 'file', info: protocolNode(info) }] : undefined,
    'backing-filename-format': info.backingFormat,
    snapshots: info.snapshots.length > 0 ? info.snapshots.map(snapshot) : undefined,
    'virtual-size': info.virtualSize,
    filename: info.filename,
    'cluster-size': info.clusterSize,
    format: info.format,
    'actual-size': info.actualSize,
    'format-specific': info.qcow2 && { type: 'qcow2', data: formatSpecific(info.qcow2, version) },
    'full-backing-filename': info.fullBackingFile,
    encrypted: info.encrypted || undefined,
    'backing-filename': info.backingFile,
    'dirty-flag': info.dirty,
  }
}

/** The file that the image is in, as an image of its own. */
function protocolNode(info: DescribedImage): JsonObject {
  return {
    limits: info.limits && limitsToJson(info.limits.file),
    children: [],
    'virtual-size': fileLength(info),
    filename: info.filename,
    format: protocolOf(info),
    'actual-size': info.actualSize,
    'format-specific': info.blockDevice ? undefined : { type: 'file', data: {} },
    'dirty-flag': false,
  }
}

/** Keys in QEMU's order, which is that of people's lines too. */
export function limitsToJson(limits: BlockLimits): JsonObject {
  return {
    'write-zeroes-alignment': limits.writeZeroesAlignment,
    'request-alignment': limits.requestAlignment,
    'min-mem-alignment': limits.minMemAlignment,
    'discard-alignment': limits.discardAlignment,
    'opt-mem-alignment': limits.optMemAlignment,
    'max-iov': limits.maxIov,
  }
}

/** QEMU's name for the driver of an image's file. */
export function protocolOf({ blockDevice }: ImageInfo): string {
  return blockDevice ? 'host_device' : 'file'
}

/** Bytes of the file that an image is in; QEMU counts whole sectors. */
export function fileLength({ fileSize }: ImageInfo): number {
  return roundUp(fileSize, SECTOR_SIZE)
}

/** Properties of a qcow2 image. */
export function formatSpecific(qcow2: Qcow2Info, version: QemuVersion): JsonObject {
  const v3 = qcow2.compat !== '0.10'
  return {
    compat: qcow2.compat,
    'compression-type': qcow2.compressionType,
    'lazy-refcounts': v3 ? qcow2.lazyRefcounts : undefined,
    bitmaps: v3 && qcow2.bitmaps.length > 0 ? qcow2.bitmaps.map(bitmap) : undefined,
    'refcount-bits': qcow2.refcountBits,
    'data-file': v3 ? qcow2.dataFile : undefined,
    encrypt: qcow2.encryption && encryption(qcow2.encryption, version),
    'data-file-raw': v3 && qcow2.externalDataFile ? qcow2.dataFileRaw : undefined,
    corrupt: v3 ? qcow2.corrupt : undefined,
    'extended-l2': v3 ? qcow2.extendedL2 : undefined,
  }
}

function bitmap({ name, granularity, inUse, auto }: BitmapInfo): JsonObject {
  return { flags: [...(inUse ? ['in-use'] : []), ...(auto ? ['auto'] : [])], name, granularity }
}

function encryption(
  encryption: NonNullable<Qcow2Info['encryption']>,
  version: QemuVersion,
): JsonObject {
  return encryption.method === 'aes' ? { format: 'aes' } : luks(encryption.header, version)
}

function luks(header: LuksHeader, version: QemuVersion): JsonObject {
  const { cipher, mode, hash, keyLength, payloadOffset, keyIterations, uuid, slots } = header
  // `xts-plain64`, `cbc-essiv:sha256`
  const [, chaining, vectors, vectorsHash] = /^([^-]*)-?([^:]*):?(.*)$/s.exec(mode)!
  // XTS takes two keys.
  const bits = (keyLength * 8) / (chaining === 'xts' ? 2 : 1)
  return {
    'ivgen-alg': vectors,
    'detached-header': atLeast(version, 9, 0) ? false : undefined,
    'hash-alg': hash,
    'cipher-alg': `${cipher}-${bits}`,
    uuid,
    'ivgen-hash-alg': vectors === 'essiv' ? vectorsHash : undefined,
    format: 'luks',
    'cipher-mode': chaining,
    slots: slots.map(({ active, iterations, keyOffset, stripes }) => ({
      active,
      iters: active ? iterations : undefined,
      'key-offset': keyOffset,
      stripes: active ? stripes : undefined,
    })),
    'payload-offset': payloadOffset,
    'master-key-iters': keyIterations,
  }
}

const SECOND = 1_000_000_000n

function snapshot(snapshot: Snapshot): JsonObject {
  const { instructions, vmClock, name, dateSeconds, dateNanoseconds, id, vmStateSize } = snapshot
  return {
    icount: instructions === undefined ? undefined : BigInt.asIntN(64, instructions),
    'vm-clock-nsec': vmClock % SECOND,
    name,
    'date-sec': dateSeconds,
    'date-nsec': dateNanoseconds,
    'vm-clock-sec': vmClock / SECOND,
    id,
    'vm-state-size': BigInt.asIntN(64, vmStateSize),
  }
}
