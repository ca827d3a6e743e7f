import { homedir } from 'node:os'
import { join } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { access, constants } from '../files.ts'
import type { NbdAddress } from './uri.ts'

const AUTHORITY = 'ca-cert.pem'

/**
 * Refuses an encrypted connection whose server could be anybody: where libnbd finds no authority it
 * turns to those of the system, and releases before 1.18.5 and 1.20.3 then accept any certificate
 * (CVE-2024-7383).
 * @throws BackupError IO
 */
export async function requireTrust({ displayUri, tls, parameters }: NbdAddress): Promise<void> {
  if (!tls || parameters.has('tls-psk-file')) return
  const directory = parameters.get('tls-certificates')
  if (directory !== undefined) {
    try {
      await access(join(directory, AUTHORITY), constants.R_OK)
    } catch (error) {
      const { why, errno } = ioError(displayUri, error)
      const all = `no certificate authority in ${directory}: ${AUTHORITY}: ${why}`
      throw new BackupError('IO', displayUri, all, { cause: error, errno })
    }
    return
  }
  for (const candidate of defaultDirectories()) {
    const found = await access(join(candidate, AUTHORITY), constants.R_OK).then(
      () => true,
      () => false,
    )
    if (found) return
  }
  const why =
    'no certificate or key to verify the server with; add ?tls-certificates=DIR (a directory with ca-cert.pem) ' +
    'or ?tls-psk-file=FILE'
  throw new BackupError('IO', displayUri, why)
}

/** Where libnbd looks by itself (nbd_set_tls_certificates(3)). */
function defaultDirectories(): string[] {
  if (process.geteuid?.() === 0) return ['/etc/pki/libnbd']
  return ['.pki/libnbd', '.config/pki/libnbd'].map((path) => join(homedir(), path))
}
