import { createHash } from 'node:crypto'
import t from 'tap'
import { html, markup, textLines } from '../../lib/page/html.ts'
import { renderPage } from '../../lib/page/page.ts'
import { decodeText } from '../../lib/text.ts'

/** Names that are not to become anything else than text. */
const HOSTILE = [
  ['</script><script>alert(1)</script>', /^[^<>]*$/],
  ['"><img src=x onerror=alert(1)>', /^[^<>"]*$/],
  ["' onload='alert(1)", /^[^']*$/],
  ['&lt;', /^&#38;lt;$/],
  ['one\ntwo\u202ethree\0', /^one\\x0atwo\\u\{202e\}three\\x00$/],
  [decodeText(Buffer.from([0x61, 0xff, 0x62])), /^a\\xffb$/],
] as const

t.test('a name in markup stays text', async (t) => {
  for (const [name, safe] of HOSTILE) {
    t.match(html`${name}`.text, safe)
    t.equal(html`<b title="${name}">${name}</b>`.text.match(/[<>"]/g)?.length, 6)
  }
  t.equal(textLines('<a>\n&\r').text, '&#60;a&#62;\n&#38;\\x0d', 'lines stay lines')
})

t.test('parts are put in in their order, and what is not there is left out', async (t) => {
  const items = ['a', 'b'].map((item) => html`<li>${item}</li>`)
  t.equal(html`<ul>${items}</ul>${undefined}${false}${0}`.text, '<ul><li>a</li><li>b</li></ul>0')
  t.equal(html`${markup('<hr>')}`.text, '<hr>')
})

t.test('a page allows its own script and rules, and nothing else', async (t) => {
  const script = 'document.title'
  const page = renderPage({ title: '</title><x>', style: 'b { }', script, body: html`<p>x</p>` })
  const rules = /<style>(.*)<\/style>/s.exec(page)?.[1] ?? ''
  t.match(rules, /b \{ \}/)
  const hash = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`
  const [, policy] = /<meta http-equiv="Content-Security-Policy" content="([^"]*)">/.exec(page)!
  const allowed = policy.split('; ')
  t.strictSame(allowed, [
    "default-src 'none'",
    `style-src ${hash(rules)}`,
    `script-src ${hash(script)}`,
    "base-uri 'none'",
    "form-action 'none'",
  ])
  t.match(page, /<title>&#60;\/title&#62;&#60;x&#62;<\/title>/)
  const none = renderPage({ title: 'x', body: html`` })
  t.notMatch(none, /<script|script-src/)
})
