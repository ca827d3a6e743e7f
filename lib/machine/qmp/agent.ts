import { unsupported } from '../../errors.ts'
import { ask } from '../../qmp/ask.ts'
import type { QmpClient } from '../../qmp/client.ts'
import { GuestAgent } from '../../qmp/guest-agent.ts'
import { QmpError } from '../../qmp/qmp-error.ts'

/** The name of the agent's port, by which the guest finds it. */
const PORT = 'org.qemu.guest_agent.0'

/**
 * Where the guest agent of a QEMU is reached: the chardev behind its port in the guest.
 * @returns a path, or `HOST:PORT`
 * @throws BackupError UNSUPPORTED if it has none that others can connect to
 */
export async function findGuestAgent(client: QmpClient, title: string): Promise<string> {
  const why = await reasonOr(async () => {
    for (const path of ['/machine/peripheral', '/machine/peripheral-anon']) {
      for (const { name, type } of await list(client, path)) {
        if (type !== 'child<virtserialport>') continue
        const device = `${path}/${name}`
        if ((await property(client, device, 'name')) !== PORT) continue
        const label = await property(client, device, 'chardev')
        const chardevs = await ask<{ label: string; filename: string }[]>(client, 'query-chardev', [
          { label: 'string', filename: 'string' },
        ])
        const address = addressOf(chardevs.find((one) => one.label === label)?.filename ?? '')
        if (address !== undefined) return { address }
        return 'its guest agent is not on a socket that others can connect to'
      }
    }
    return `it has no port ${PORT} for a guest agent`
  })
  if (typeof why === 'string') throw unsupported(title, why)
  return why.address
}

async function reasonOr<T>(find: () => Promise<T>): Promise<T | string> {
  try {
    return await find()
  } catch (error) {
    // A storage daemon has no devices.
    if (error instanceof QmpError) return 'it has no guest agent'
    throw error
  }
}

async function list(client: QmpClient, path: string): Promise<{ name: string; type: string }[]> {
  return await ask(client, 'qom-list', [{ name: 'string', type: 'string' }], { path })
}

async function property(client: QmpClient, path: string, name: string): Promise<unknown> {
  return await client.execute('qom-get', { path, property: name })
}

/** As QEMU shows it: `disconnected:unix:/run/agent,server=on`, `disconnected:tcp:127.0.0.1:5000,server=on`. */
function addressOf(filename: string): string | undefined {
  const { path, host } =
    /^(?:disconnected:)?(?:unix:(?<path>.*),server=on|tcp:(?<host>[^,]+),server=on)/.exec(filename)
      ?.groups ?? {}
  return path ?? host
}

/** Thaws what a run left frozen that was killed. @throws BackupError */
export async function thawGuest(address: string): Promise<void> {
  const agent = await GuestAgent.connect(address)
  try {
    await agent.execute('guest-fsfreeze-thaw')
  } finally {
    agent.close()
  }
}
