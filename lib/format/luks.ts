import { inFile, malformed, notSupported } from './format-error.ts'
import { cString } from './qcow2/fields.ts'
import { type ImageFile, readAt } from './read.ts'

/** One of the eight places of a LUKS header that can hold the key, each for its own passphrase. */
export interface LuksSlot {
  active: boolean
  iterations: number
  /** Bytes from the start of the LUKS header. */
  keyOffset: number
  stripes: number
}

/** A LUKS header of version 1 (spec: "LUKS On-Disk Format Specification", 1.2.3). */
export interface LuksHeader {
  cipher: string
  /** As it is written, with how its vectors are made: `xts-plain64`. */
  mode: string
  hash: string
  /** Bytes from the start of the LUKS header. */
  payloadOffset: number
  /** Bytes. */
  keyLength: number
  keyIterations: number
  uuid: string
  slots: LuksSlot[]
}

const MAGIC = Buffer.from('LUKS\xba\xbe', 'latin1')
/** Bytes of the header without the keys. */
const HEADER_BYTES = 592
const SECTOR = 512
const SLOTS = 8
const SLOTS_AT = 208
const SLOT_BYTES = 48
const ACTIVE = 0x00ac71f3
const INACTIVE = 0x0000dead
const STRIPES = 4000

/**
 * Reads the LUKS header at `offset` of an image, and checks it as QEMU does when it describes it.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED for another version, IO
 */
export async function readLuksHeader(file: ImageFile, offset: number): Promise<LuksHeader> {
  const bytes = await readAt(file, offset, HEADER_BYTES)
  return inFile(file.path, () => decodeLuksHeader(bytes))
}

function decodeLuksHeader(bytes: Buffer): LuksHeader {
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) {
    throw malformed('has no LUKS header where it should be', 'Volume is not in LUKS format')
  }
  const version = bytes.readUInt16BE(6)
  if (version !== 1) {
    const why = `LUKS version ${version} is not supported`
    throw notSupported(why, why)
  }
  const text = (name: string, at: number) => {
    const field = bytes.subarray(at, at + 32)
    if (!field.includes(0)) throw wrong(`header ${name} is not NUL terminated`, 'LUKS ')
    return cString(field)
  }
  const header = {
    cipher: text('cipher name', 8),
    mode: text('cipher mode', 40),
    hash: text('hash spec', 72),
    payloadOffset: bytes.readUInt32BE(104) * SECTOR,
    keyLength: bytes.readUInt32BE(108),
    keyIterations: bytes.readUInt32BE(164),
    uuid: cString(bytes.subarray(168, 208)),
    slots: decodeSlots(bytes),
  }
  requireSound(header)
  return header
}

function decodeSlots(bytes: Buffer): LuksSlot[] {
  return Array.from({ length: SLOTS }, (_, i) => {
    const at = SLOTS_AT + i * SLOT_BYTES
    const state = bytes.readUInt32BE(at)
    if (state !== ACTIVE && state !== INACTIVE) {
      throw wrong(`Keyslot ${i} state (active/disable) is corrupted`)
    }
    return {
      active: state === ACTIVE,
      iterations: bytes.readUInt32BE(at + 4),
      keyOffset: bytes.readUInt32BE(at + 40) * SECTOR,
      stripes: bytes.readUInt32BE(at + 44),
    }
  })
}

function requireSound(header: LuksHeader): void {
  const { slots, payloadOffset, keyLength } = header
  const headerEnd = Math.ceil(HEADER_BYTES / SECTOR) * SECTOR
  if (payloadOffset < headerEnd) throw wrong('payload is overlapping with the header', 'LUKS ')
  if (header.keyIterations === 0) throw wrong('key iteration count is zero', 'LUKS ')
  const slotBytes = Math.ceil((keyLength * STRIPES) / SECTOR) * SECTOR
  for (const [i, slot] of slots.entries()) {
    if (slot.stripes !== STRIPES) {
      throw wrong(`Keyslot ${i} is corrupted (stripes ${slot.stripes} != ${STRIPES})`)
    }
    if (slot.keyOffset < headerEnd) {
      throw wrong(`Keyslot ${i} is overlapping with the LUKS header`)
    }
    if (slot.active && slot.iterations === 0) {
      throw wrong(`Keyslot ${i} iteration count is zero`)
    }
    if (slot.keyOffset + slotBytes > payloadOffset) {
      throw wrong(`Keyslot ${i} is overlapping with the encrypted payload`)
    }
    const over = slots.findIndex((other, n) => n > i && overlap(slot, other, slotBytes))
    if (over >= 0) throw wrong(`Keyslots ${i} and ${over} are overlapping in the header`)
  }
}

function overlap(a: LuksSlot, b: LuksSlot, bytes: number): boolean {
  return a.keyOffset < b.keyOffset + bytes && b.keyOffset < a.keyOffset + bytes
}

/** @param qemu QEMU's prefix of the message */
function wrong(why: string, qemu = '') {
  return malformed(`LUKS: ${why}`, qemu + why)
}
