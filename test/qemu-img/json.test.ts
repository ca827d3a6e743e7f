import t from 'tap'
import { formatJson } from '../../lib/qemu-img/json.ts'
import { decodeText } from '../../lib/text.ts'

t.test('objects and lists are printed an item to a line', async (t) => {
  const value = {
    a: 1,
    b: [true, null, { c: 'd' }],
    empty: [],
    none: {},
    left: undefined,
    big: 2n ** 60n,
  }
  t.equal(
    formatJson(value),
    `{
    "a": 1,
    "b": [
        true,
        null,
        {
            "c": "d"
        }
    ],
    "empty": [
    ],
    "none": {
    },
    "big": 1152921504606846976
}
`,
  )
  t.equal(formatJson([]), '[\n]\n')
  t.equal(formatJson('text'), '"text"\n')
})

t.test('strings are printed in ASCII', async (t) => {
  const cases: [string, string][] = [
    ['a/b c~', 'a/b c~'],
    ['"\\\b\f\n\r\t', '\\"\\\\\\b\\f\\n\\r\\t'],
    ['\0\x01\x1f\x7f', '\\u0000\\u0001\\u001F\\u007F'],
    ['é日', '\\u00E9\\u65E5'],
    ['😀', '\\uD83D\\uDE00'],
    // For internal use, says Unicode.
    ['\ufffe\uffff\ufdd0\u{1ffff}', '\\uFFFD\\uFFFD\\uFFFD\\uFFFD'],
    ['\ufffd', '\\uFFFD'],
  ]
  for (const [text, json] of cases) t.equal(formatJson(text), `"${json}"\n`, json)
})

t.test('bytes that are not characters are printed as QEMU does', async (t) => {
  const cases: [number[], string][] = [
    [[0xff, 0xfe], '\\uFFFD\\uFFFD'],
    [[0x80, 0xbf], '\\uFFFD\\uFFFD'],
    [[0xc3, 0x61], '\\uFFFDa'],
    [[0xe2, 0x82], '\\uFFFD'],
    [[0xe2, 0x82, 0x82, 0x82], '\\u2082\\uFFFD'],
    [[0xe0, 0x80, 0x80], '\\uFFFD'],
    [[0xed, 0xa0, 0x80, 0x78], '\\uFFFDx'],
    [[0x61, 0xc0, 0x80, 0x62], 'a\\u0000b'],
    [[0xc1, 0x81], '\\uFFFD'],
    [[0xf4, 0x90, 0x80, 0x80], '\\uFFFD'],
    [[0xf8, 0x88, 0x80, 0x80, 0x80], '\\uFFFD'],
    [[0xfc, 0x84, 0x80, 0x80, 0x80, 0x80, 0x80], '\\uFFFD\\uFFFD'],
    [[0xc3, 0xe2, 0x82, 0xac], '\\uFFFD\\u20AC'],
  ]
  for (const [bytes, json] of cases) {
    t.equal(
      formatJson(decodeText(Buffer.from(bytes))),
      `"${json}"\n`,
      Buffer.from(bytes).toString('hex'),
    )
  }
})
