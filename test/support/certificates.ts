/** What a server on a TCP port needs. */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

/**
 * A certificate for `localhost`, signed by an authority made for the test, for a server and for a client;
 * returns its directory.
 */
export function makeCertificates(directory: string, days: number): string {
  mkdirSync(directory)
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' })
  const request = ['req', '-newkey', 'rsa:2048', '-nodes']
  const extensions = 'basicConstraints=CA:false\nsubjectAltName=DNS:localhost\n'
  writeFileSync(join(directory, 'extensions'), extensions)
  openssl(
    ...[...request, '-x509', '-subj', '/CN=test authority', '-days', '2'],
    ...['-keyout', 'ca-key.pem', '-out', 'ca-cert.pem'],
  )
  openssl(...request, '-subj', '/CN=localhost', '-keyout', 'server-key.pem', '-out', 'request.pem')
  openssl(
    ...['x509', '-req', '-in', 'request.pem', '-CA', 'ca-cert.pem', '-CAkey', 'ca-key.pem'],
    ...['-CAcreateserial', '-days', String(days), '-extfile', 'extensions'],
    ...['-out', 'server-cert.pem'],
  )
  for (const part of ['cert', 'key']) {
    copyFileSync(join(directory, `server-${part}.pem`), join(directory, `client-${part}.pem`))
  }
  return directory
}

/** A port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
