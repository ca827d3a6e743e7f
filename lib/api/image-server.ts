import { CHAIN_OPTIONS, CONTROL_OPTIONS } from '../options.ts'
import {
  callback,
  checkOptions,
  list,
  option,
  PATH,
  type Rule,
  type SchemaFor,
  TEXT,
  whole,
} from '../schema.ts'
import {
  createImageServer as create,
  type ImageServer,
  type ImageServerOptions,
} from '../server/image-server.ts'
import type { Listening, ServeOptions } from '../server/serve.ts'
import { Call } from './call.ts'

/** An abstract socket begins with a NUL. */
const SOCKET: Rule<string> = {
  ...PATH,
  fault(value) {
    return typeof value === 'string' ? PATH.fault(value.replace(/^\0/, '@')) : PATH.fault(value)
  },
}

const SERVED = {
  repository: option(PATH, 'the repository that repo: urls are about', {
    flag: 'repo',
    value: 'dir',
  }),
  allowPaths: CHAIN_OPTIONS.allowPaths,
  maxConnections: option(whole(1, 65_536), 'connections that each address takes at once', {
    fallback: '512',
  }),
} as const

const IMAGE_SERVER_OPTIONS: SchemaFor<ImageServerOptions> = {
  ...SERVED,
  unixSocket: option(SOCKET, 'a socket on which clients of this host find the same images'),
}

export const SERVE_OPTIONS: SchemaFor<ServeOptions> = {
  listen: option(list(TEXT), 'where images are served: HOST:PORT or unix:PATH; repeatable', {
    value: 'address',
  }),
  control: option(TEXT, 'where tickets are added: unix:PATH, for this user only', {
    value: 'address',
  }),
  tlsCert: option(PATH, 'serve by HTTPS, with this certificate', { value: 'file' }),
  tlsKey: option(PATH, 'the key of the certificate', { value: 'file' }),
  ...SERVED,
  onListening: option(callback<(where: Listening) => void>(), 'called when it serves'),
  signal: CONTROL_OPTIONS.signal,
}

/**
 * A server of images for the clients of ovirt-imageio, to be mounted in an HTTP server of the program's own.
 * @throws BackupError USAGE
 */
export function createImageServer(options: ImageServerOptions = {}): ImageServer {
  return create(checkOptions(IMAGE_SERVER_OPTIONS, options))
}

/**
 * Serves images for the clients of ovirt-imageio until the signal is aborted, as the command `serve` does.
 * @throws BackupError ABORTED then; USAGE, IO, IN_USE if it cannot begin
 */
export async function serveImages(options: ServeOptions): Promise<void> {
  const checked = checkOptions(SERVE_OPTIONS, options)
  const call = new Call('serve', checked.signal)
  const onListening = call.callback('onListening', checked.onListening)
  await call.run(async () => {
    const { serveImages: run } = await import('../server/serve.ts')
    const { listen = [], control = '', ...rest } = checked
    await run({ ...rest, listen, control, onListening })
  })
}
