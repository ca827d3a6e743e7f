import type { Command } from 'commander'
import { SERVE_OPTIONS, serveImages } from '../../api/image-server.ts'
import { argumentError } from '../../errors.ts'
import { addFlags, optionsFrom } from '../flags.ts'
import type { Io } from '../io.ts'
import { printResult } from '../print-result.ts'

const HELP = `
Serves disks over HTTP to the clients of ovirt-imageio. Which disk, to whom and for how long, a ticket says, which
is added through the control socket; its id is all the secret there is. Ends with SIGTERM: requests under way have
ten seconds. A ticket's url is file:///PATH (raw or qcow2), nbd:unix:PATH[:exportname=NAME], an NBD URI, or with
--repo repo:MACHINE@POINT/DISK. A file that a ticket lets write is a new one, which gets its name when all of it was
flushed and the ticket is deleted. A ticket is added like this:

  curl --unix-socket /run/qb.sock -X PUT http://localhost/tickets/new -d '{"size": 1073741824,
    "ops": ["read"], "timeout": 300, "url": "file:///srv/disk.qcow2"}'

Examples:
  qcow2-backup serve --listen 127.0.0.1:54322 --control unix:/run/qb.sock
  qcow2-backup serve --listen 0.0.0.0:54322 --tls-cert cert.pem --tls-key key.pem \\
    --control unix:/run/qb.sock --repo /srv/backups`

/** `serve`: an imageio-compatible server. */
export function declare(command: Command, io: Io): void {
  command
    .description('Serves disks over HTTP to the clients of ovirt-imageio.')
    .option('--json', 'print where it listens as one JSON object')
  addFlags(command, SERVE_OPTIONS)
    .addHelpText('after', HELP)
    .action((flags: { json?: boolean }) => serve(io, flags))
}

async function serve(io: Io, flags: { json?: boolean }): Promise<void> {
  const { listen, control, ...options } = optionsFrom(flags, SERVE_OPTIONS)
  if (listen === undefined) throw argumentError('listen', 'missing; HOST:PORT or unix:PATH')
  if (control === undefined) throw argumentError('control', 'missing; unix:PATH')
  await io.interruptible(async (signal) => {
    await serveImages({
      ...options,
      listen,
      control,
      signal,
      onListening: (where) =>
        printResult(io, flags, where, () => [
          ...where.listen.map((one) => `images at ${one}`),
          `tickets at ${where.control}`,
        ]),
    })
  })
}
