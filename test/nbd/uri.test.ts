import t from 'tap'
import { isNbdUri, parseNbdUri } from '../../lib/nbd/uri.ts'

t.test('NBD locations are told from paths by their scheme', async (t) => {
  for (const uri of ['nbd://h', 'nbds://h/x', 'nbd+unix:///x', 'nbds+unix:///', 'nbd:h:1']) {
    t.ok(isNbdUri(uri), uri)
  }
  for (const path of ['nbd', 'nbd.qcow2', './nbd://h', 'nbd+ssh://h', 'https://h', 'NBD://h']) {
    t.notOk(isNbdUri(path), path)
  }
})

t.test('each form of NBD URI is parsed', async (t) => {
  const of = (uri: string) => {
    const address = parseNbdUri(uri)
    t.equal(address.uri, uri, 'libnbd gets it as it is')
    return [address.displayUri, address.identity]
  }
  t.strictSame(of('nbd://host'), ['nbd://host', 'nbd:host:10809/'])
  t.strictSame(of('nbd://HOST:10809/'), ['nbd://HOST:10809/', 'nbd:host:10809/'])
  t.strictSame(of('nbds://[::1]:99/a%2Fb'), ['nbds://[::1]:99/a%2Fb', 'nbd:[::1]:99/a/b'])
  t.strictSame(of('nbd+unix:///x?socket=/run/a%20b'), [
    'nbd+unix:///x?socket=/run/a%20b',
    'nbd:/run/a b/x',
  ])
  t.strictSame(of('nbd+unix://?socket=/a'), ['nbd+unix:///?socket=/a', 'nbd:/a/'])
  t.strictSame(of('nbds+unix://alice@/x?tls-psk-file=/k&socket=/a'), [
    'nbds+unix:///x?socket=/a',
    'nbd:/a/x',
  ])
})

t.test('what is displayUri holds no secrets, also where the URI is refused', async (t) => {
  const secret = 'hunter2'
  const { displayUri } = parseNbdUri(
    `nbds://u:${secret}@h/x?password=${secret}&tls-psk-file=${secret}`,
  )
  t.equal(displayUri, 'nbds://h/x')
  for (const uri of [
    `nbd://u:${secret}@h:x/e?a=${secret}`,
    `nbd://u:${secret}@h/x#${secret}`,
    `nbd:h?${secret}`,
    `nbd+unix:///x?secret=${secret}`,
  ]) {
    t.throws(() => parseNbdUri(uri), { code: 'USAGE' })
    try {
      parseNbdUri(uri)
    } catch (error) {
      t.notMatch((error as Error).message, secret)
    }
  }
})

t.test('wrong URIs are refused, with the form that is right', async (t) => {
  for (const [uri, why] of [
    ['nbd:localhost:10809', 'is not an NBD URI; write nbd://HOST[:PORT]/EXPORT'],
    ['nbd:///x', 'the host is missing; write nbd://HOST[:PORT]/EXPORT'],
    ['nbds://:1/x', 'the host is missing; write nbds://HOST[:PORT]/EXPORT'],
    ['nbd://h:0/x', "'0' is not a valid port; write nbd://HOST[:PORT]/EXPORT"],
    ['nbd://h:65536/x', "'65536' is not a valid port; write nbd://HOST[:PORT]/EXPORT"],
    ['nbd:///x?socket=/a', 'a socket needs nbd+unix:///EXPORT?socket=PATH'],
    ['nbd+unix:///x', 'the socket is missing; write nbd+unix:///EXPORT?socket=PATH'],
    ['nbd+unix:///x?socket=', 'the socket is missing; write nbd+unix:///EXPORT?socket=PATH'],
    ['nbds+unix://x?socket=/a', 'a Unix socket has no host; write nbds+unix:///EXPORT?socket=PATH'],
    ['nbd://h/a b', "' ' must be written %20 in a URI"],
    ['nbd://h/é', "'é' must be written %C3%A9 in a URI"],
    ['nbd://h/100%', "'%' must be written %25 in a URI"],
    ['nbd://h/a#b', "'#' must be written %23 in a URI"],
    ['nbd://h/%ff', 'its percent-escapes are not valid UTF-8'],
  ]) {
    t.throws(() => parseNbdUri(uri), { code: 'USAGE', why }, uri)
  }
})
