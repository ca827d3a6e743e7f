/** The markup of a page, as far as tests look at it. */
import type { Test } from 'tap'

const TAG = /<(\/?)([a-z!][a-z0-9]*)((?:\s+[a-z][a-z0-9-]*(?:="[^"]*")?)*)\s*(\/?)>/gi
const VOID = ['!doctype', 'meta', 'input']
const FOREIGN = /^(script|img|iframe|object|embed|link|base|form)$|\s(on[a-z]+|href|src|style)\b/i

/** Each element is closed, none has what a page of ours never has, and nothing is left that looks like one. */
export function requireSoundMarkup(t: Test, page: string): void {
  const open: string[] = []
  const faults: string[] = []
  const body = page.replace(/<(style|script)>.*?<\/\1>/gs, '')
  const rest = body.replaceAll(TAG, (_, end, name, attributes, closed) => {
    const names = attributes.replace(/"[^"]*"/g, '')
    if (FOREIGN.test(name) || FOREIGN.test(names)) faults.push(`${name}${names}`)
    if (end && open.pop() !== name) faults.push(`/${name}`)
    if (!end && !closed && !VOID.includes(name.toLowerCase())) open.push(name)
    return ''
  })
  const left = (rest.match(/[<>].{0,40}/g) ?? []).slice(0, 3)
  t.strictSame([open, faults.slice(0, 3), left], [[], [], []], 'the markup is sound')
  t.notOk(/\b(NaN|Infinity|undefined|null|\[object)\b/.exec(body)?.[0])
}
