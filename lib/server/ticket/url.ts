import { argumentError } from '../../errors.ts'
import { parseNbdUri } from '../../nbd/uri.ts'
import { decodeText, encodeText } from '../../text.ts'

/** What a ticket's url names. */
export type Place =
  | { kind: 'file'; path: string }
  | { kind: 'nbd'; uri: string }
  | { kind: 'repository'; machine: string; point?: string; disk: string }

const FORMS =
  'write file:///PATH, nbd:unix:PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME], an NBD URI, or ' +
  'repo:MACHINE@POINT/DISK'

/**
 * Reads a ticket's url.
 * @throws BackupError USAGE
 */
export function placeOf(url: string): Place {
  if (url.startsWith('file:')) return fileOf(url)
  if (url.startsWith('repo:')) return pointOf(url)
  const uri = nbdUriOf(url)
  if (uri === undefined) throw wrong(`is of no kind that is served; ${FORMS}`)
  // It says what is wrong with it.
  parseNbdUri(uri)
  return { kind: 'nbd', uri }
}

function fileOf(url: string): Place {
  const path = /^file:\/\/(?:localhost)?(\/[^?#]*)$/s.exec(url)?.[1]
  if (path === undefined)
    throw wrong('is no file URL; write file:///PATH, and ? and # as %3F and %23')
  return { kind: 'file', path: decode(path) }
}

/** A machine may have an @ in its name; slashes and percent signs are escaped. */
function pointOf(url: string): Place {
  const [, machine, point, disk] = /^repo:([^/]+)@([^@/]*)\/([^/]+)$/s.exec(url) ?? []
  if (machine === undefined) throw wrong('is not written repo:MACHINE@POINT/DISK')
  const names = { machine: decode(machine), disk: decode(disk) }
  return { kind: 'repository', ...names, ...(point !== '' && { point: decode(point) }) }
}

/** The old forms, which oVirt's engine writes, as NBD URIs. */
function nbdUriOf(url: string): string | undefined {
  if (/^nbds?(\+unix)?:\/\//.test(url)) return url
  const unix = /^nbd:unix:([^:]+)(?::exportname=(.*))?$/s.exec(url)
  if (unix) {
    const [, path, name = ''] = unix
    return `nbd+unix:///${escaped(name)}?socket=${escaped(path)}`
  }
  const tcp = /^nbd:(\[[^\]]+\]|[^:/[]+):(\d+)(?::exportname=(.*))?$/s.exec(url)
  if (!tcp) return undefined
  const [, host, port, name = ''] = tcp
  return `nbd://${host}:${port}/${escaped(name)}`
}

/** Byte by byte: a name may be no UTF-8. */
function escaped(name: string): string {
  return encodeText(name)
    .toString('latin1')
    .replace(/[^A-Za-z0-9._~/-]/g, (byte) => {
      return `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
    })
}

function decode(text: string): string {
  if (/%(?![0-9a-f]{2})/i.test(text)) throw wrong('has a percent sign that is not written %25')
  const bytes = encodeText(text).toString('latin1')
  const decoded = bytes.replace(/%([0-9a-f]{2})/gi, (_, hex) => {
    return String.fromCharCode(Number.parseInt(hex, 16))
  })
  if (decoded.includes('\0')) throw wrong('contains a NUL byte')
  return decodeText(Buffer.from(decoded, 'latin1'))
}

function wrong(why: string) {
  return argumentError('url', why)
}
