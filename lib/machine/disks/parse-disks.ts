import { usageError } from '../../errors.ts'
import { isImageUrl, shownLocation } from '../../imageio/client/address.ts'
import type { Format } from '../../source/source-chain.ts'
import { quoted } from '../../text.ts'

/** A disk as the user named it. */
export interface NamedDisk {
  name: string
  /** A path or an NBD URI. */
  source: string
  /** Of its topmost image, where each disk has its own. */
  format?: Format
}

/**
 * Reads `NAME=SOURCE[,NAME=SOURCE…]`. As for QEMU's options a comma of a source is written twice.
 * @throws BackupError USAGE
 */
export function parseDisks(text: string): NamedDisk[] {
  const disks: NamedDisk[] = []
  for (const part of split(text)) {
    const [, name, source] = /^([^=]*)=(.*)$/s.exec(part) ?? []
    if (!name || !source) {
      const why = `${quoted(part)} is not NAME=SOURCE; a comma of a name is written twice`
      throw usageError(`disk:${text}`, why)
    }
    if (isImageUrl(source)) {
      const why = 'an imageio ticket is for one transfer; back it up with full and incremental'
      throw usageError(shownLocation(source), why)
    }
    if (disks.some((disk) => disk.name === name)) {
      throw usageError(`disk:${text}`, `has two disks ${quoted(name)}`)
    }
    disks.push({ name, source })
  }
  return disks
}

/** At single commas. */
function split(text: string): string[] {
  const parts = ['']
  for (let at = 0; at < text.length; at++) {
    if (text[at] !== ',') parts[parts.length - 1] += text[at]
    else if (text[at + 1] === ',') parts[parts.length - 1] += text[at++]
    else parts.push('')
  }
  return parts
}
