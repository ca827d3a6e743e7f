import { setTimeout as delay } from 'node:timers/promises'
import { type Virsh, VirshError } from './virsh.ts'

/**
 * virsh waits for an event no longer than this, seconds: it would outlive a client that was killed,
 * and an event before it waits is missed. The first waits are shorter.
 */
const MAX_WAIT_S = 16

/** Before libvirt is asked again after it did not answer, ms. */
const PAUSE_MS = 1000

/** The end of a job, and what becomes of the domain. */
const EVENTS = ['job-completed', 'lifecycle']

/**
 * Looks at a job whenever libvirt tells of something, and from time to time.
 * @param look whether there is more to watch for; exceptions count as no answer
 * @param signal ends it
 */
export async function watchDomain(
  virsh: Virsh,
  uuid: string,
  look: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  const ended = new AbortController()
  const either = AbortSignal.any([signal, ended.signal])
  const watch = async (event: string): Promise<void> => {
    for (let waitS = 1; !either.aborted; waitS = Math.min(2 * waitS, MAX_WAIT_S)) {
      const wait = ['event', `--domain=${uuid}`, `--event=${event}`, `--timeout=${waitS}`]
      const limitMs = 4 * MAX_WAIT_S * 1000
      const failed = await virsh
        .run(wait, { signal: either, limitMs, isAside: true })
        .then(() => false, isFailure)
      if (either.aborted) return
      const more = await look().catch(() => undefined)
      if (more === false) ended.abort()
      // libvirt is being restarted: the job goes on in QEMU all the same.
      else if (failed || more === undefined)
        await delay(PAUSE_MS, undefined, { signal: either, ref: false })
    }
  }
  await Promise.all(EVENTS.map((event) => watch(event).catch(() => {})))
}

/** That no event came is none: virsh says so on stdout only. */
function isFailure(error: unknown): boolean {
  return !(error instanceof VirshError && error.said.trim() === '')
}
