/** Names that are not UTF-8, as text and back. */
import { BYTES, checkArgument, ownArgument, TEXT } from '../schema.ts'
import { decodeText, encodeText } from '../text.ts'

/**
 * The text for a name's bytes; `nameToBytes` turns it back into exactly these bytes.
 * @throws BackupError USAGE
 */
export function nameFromBytes(bytes: Uint8Array): string {
  const { buffer, byteOffset, byteLength } = ownArgument('bytes', BYTES, bytes)
  return decodeText(Buffer.from(buffer, byteOffset, byteLength))
}

/**
 * The bytes of a name.
 * @throws BackupError USAGE
 */
export function nameToBytes(name: string): Buffer {
  return encodeText(checkArgument('name', TEXT, name))
}
