/** Waits for lines in a server's log, such as nbdkit's with `--filter=log`. */
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/** Waits until a file has a text, and maybe more than once. */
export async function logged(path: string, text: RegExp, times = 1): Promise<string> {
  const every = new RegExp(text.source, 'g')
  for (;;) {
    const log = readFileSync(path, { encoding: 'utf8', flag: 'a+' })
    if ([...log.matchAll(every)].length >= times) return log
    await delay(20)
  }
}
