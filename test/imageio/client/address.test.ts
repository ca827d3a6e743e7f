import t from 'tap'
import { isImageUrl, parseImageUrl, shownLocation } from '../../../lib/imageio/client/address.ts'

const TICKET = '3a7c9d10-5b8e-4f2a-9c61-d0e4b7a82f35'

t.test('URLs of images', async (t) => {
  t.match(parseImageUrl(`https://host:54322/images/${TICKET}`), {
    origin: 'https://host:54322',
    path: `/images/${TICKET}`,
    tls: true,
    displayUrl: 'https://host:54322/images/3a7c9d10…',
  })
  t.match(parseImageUrl('http://[::1]/images/short'), {
    origin: 'http://[::1]',
    tls: false,
    displayUrl: 'http://[::1]/images/…',
  })
  for (const [written, socket] of [
    ['/run/sock', '/run/sock'],
    ['%2Frun%2Fsock', '/run/sock'],
    ['@/org/ovirt/imageio', '\0/org/ovirt/imageio'],
    ['%00/org/ovirt/imageio', '\0/org/ovirt/imageio'],
    ['./@file', './@file'],
  ]) {
    const { socket: found, origin } = parseImageUrl(`http+unix:///images/t?socket=${written}`)
    t.equal(found, socket)
    t.equal(origin, 'http://localhost')
  }
})

t.test('what is no URL of an image is refused, without its ticket', async (t) => {
  const wrong: [string, RegExp][] = [
    [`https:///images/${TICKET}`, /the host is missing; write https:/],
    [`https://host:0/images/${TICKET}`, /port/],
    [`https://host:70000/images/${TICKET}`, /port/],
    [`https://user:word@host/images/${TICKET}`, /no user/],
    [`https://host/images/${TICKET}?a=b`, /no parameters/],
    [`https://host/images/${TICKET}#a`, /no '#'/],
    [`https://host/images/${TICKET}/extents`, /not the URL of an image/],
    [`https://host/tickets/${TICKET}`, /not the URL of an image/],
    ['https://host/images/', /not the URL of an image/],
    ['https://host/images/..', /ticket is missing/],
    ['https://host/images/%2E%2e', /ticket is missing/],
    ['https://host/images/*', /ticket is missing/],
    ['https://host', /not the URL of an image/],
    [`https://host/images/${TICKET} x`, /percent-escaped/],
    [`https://host/images/${TICKET}%zz`, /percent-escaped/],
    [`https://host/images/${TICKET}%ff`, /UTF-8/],
    [`https://host/images/${TICKET}\r\nX: y`, /percent-escaped/],
    [`https+unix:///images/${TICKET}?socket=/a`, /no TLS over a Unix socket/],
    [`http+unix:///images/${TICKET}`, /the socket is missing/],
    [`http+unix:///images/${TICKET}?socket=`, /the socket is missing/],
    [`http+unix:///images/${TICKET}?socket=/a&x=y`, /the socket is missing/],
    [`http+unix:///images/${TICKET}?socket=/a%00b`, /not valid/],
    [`http+unix://host/images/${TICKET}?socket=/a`, /has no host/],
  ]
  for (const [url, why] of wrong) {
    t.ok(isImageUrl(url))
    t.throws(() => parseImageUrl(url), { code: 'USAGE', why }, url)
    t.notMatch(shownLocation(url), TICKET.slice(9))
    t.notMatch(shownLocation(url), 'word')
  }
  t.equal(shownLocation('/var/lib/images/disk'), '/var/lib/images/disk')
  t.equal(shownLocation('nbd://host/images/disk'), 'nbd://host/images/disk')
})
