import { argumentError, BackupError } from '../../errors.ts'
import type { MachineOptions } from '../machine.ts'
import type { Virsh } from './virsh.ts'

/** Where QEMU on another host serves the disks, and how they are reached. */
export interface TcpServer {
  kind: 'tcp'
  listen: string
  port: number
  tls: boolean
  /** As we connect to it. */
  host: string
  /** Of the URI. */
  parameters: string
}

/**
 * @returns undefined for a Unix socket
 * @throws BackupError USAGE
 */
export function serverOf(
  virsh: Virsh,
  { nbdAddress, tlsCertificates }: Pick<MachineOptions, 'nbdAddress' | 'tlsCertificates'>,
): TcpServer | undefined {
  if (nbdAddress === undefined) {
    if (tlsCertificates !== undefined) throw argumentError('tlsCertificates', 'needs nbdAddress')
    if (virsh.isLocal) return undefined
    const why =
      'QEMU is on another host, where no Unix socket reaches: say at which HOST:PORT it is to serve the ' +
      'disks (nbdAddress), and with which certificates (tlsCertificates), or run this program there'
    throw new BackupError('USAGE', virsh.connect, why, { argument: 'nbdAddress' })
  }
  const [, bracketed, plain, port] =
    /^(?:\[([0-9a-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/i.exec(nbdAddress) ?? []
  const listen = bracketed ?? plain
  if (listen === undefined || Number(port) < 1 || Number(port) > 65535) {
    throw argumentError('nbdAddress', 'is HOST:PORT')
  }
  const tls = tlsCertificates !== undefined
  return {
    kind: 'tcp',
    listen,
    port: Number(port),
    tls,
    host: bracketed ? `[${bracketed}]` : listen,
    parameters: tls ? `?tls-certificates=${encodeURIComponent(tlsCertificates)}` : '',
  }
}
