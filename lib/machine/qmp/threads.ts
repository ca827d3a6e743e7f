import type { QmpClient } from '../../qmp/client.ts'
import { QmpError } from '../../qmp/qmp-error.ts'

/**
 * Whether a device does its I/O in a thread of its own (an `iothread`), by itself or by its controller.
 * @param qdev of the device, as `query-block` has it
 */
export async function hasOwnThread(client: QmpClient, qdev: string): Promise<boolean> {
  const device = qdev.startsWith('/') ? qdev : `/machine/peripheral/${qdev}`
  for (let path = device; path !== '/machine' && path.startsWith('/machine/'); ) {
    if (await linkOf(client, path, 'iothread')) return true
    const bus = await linkOf(client, path, 'parent_bus')
    // What is on the machine's own bus has no controller.
    path = bus ? parentOf(bus) : parentOf(path)
  }
  return false
}

/** A link's target; '' if it has none, or there is no such property. */
async function linkOf(client: QmpClient, path: string, property: string): Promise<string> {
  try {
    const target = await client.execute('qom-get', { path, property })
    return typeof target === 'string' ? target : ''
  } catch (error) {
    if (error instanceof QmpError) return ''
    throw error
  }
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'))
}
