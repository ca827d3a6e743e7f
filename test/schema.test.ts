import t from 'tap'
import {
  BOOLEAN,
  callback,
  checkOptions,
  choice,
  list,
  option,
  ownArgument,
  PATH,
  powerOfTwo,
  record,
  SIGNAL,
  show,
  TEXT,
  whole,
} from '../lib/schema.ts'

const SCHEMA = {
  count: option(whole(1, 16), 'how many'),
  size: option(powerOfTwo(512, 2 ** 21), 'how large'),
  word: option(choice('raw', 'qcow2'), 'which'),
  yes: option(BOOLEAN, 'whether'),
  dirs: option(list(PATH), 'where'),
  signal: option(SIGNAL, 'when'),
  call: option(callback<() => void>(), 'what'),
} as const

const SYMBOL = Symbol('x')
const EVIL = {
  toString() {
    throw new Error('toString() was called')
  },
}

t.test('each rule takes what it should, and says why it takes nothing else', async (t) => {
  const good: [keyof typeof SCHEMA, unknown[]][] = [
    ['count', [1, 16]],
    ['size', [512, 65536, 2 ** 21]],
    ['word', ['raw', 'qcow2']],
    ['yes', [true, false]],
    ['dirs', [[], ['/'], ['a', 'b']]],
    ['signal', [AbortSignal.abort()]],
    ['call', [() => {}, class {}]],
  ]
  for (const [key, values] of good) {
    for (const value of values) t.same(checkOptions(SCHEMA, { [key]: value })[key], value)
  }
  const bad: [keyof typeof SCHEMA, unknown, string][] = [
    ['count', 0, '0 is not a whole number from 1 to 16'],
    ['count', 17, '17 is not a whole number from 1 to 16'],
    ['count', 1.5, '1.5 is not a whole number from 1 to 16'],
    ['count', Number.NaN, 'NaN is not a whole number from 1 to 16'],
    ['count', 4n, '4n is not a whole number from 1 to 16'],
    ['count', '4', "'4' is not a whole number from 1 to 16"],
    ['count', SYMBOL, 'a symbol is not a whole number from 1 to 16'],
    ['count', [4], 'an array is not a whole number from 1 to 16'],
    ['count', EVIL, 'an object is not a whole number from 1 to 16'],
    ['count', null, 'null is not a whole number from 1 to 16'],
    ['size', 1000, '1000 is not a power of two from 512 to 2M'],
    ['size', 256, '256 is not a power of two from 512 to 2M'],
    ['size', -512, '-512 is not a power of two from 512 to 2M'],
    ['word', 'vmdk', "'vmdk' is not one of raw, qcow2"],
    ['word', ['raw'], 'an array is not one of raw, qcow2'],
    ['yes', 'false', "'false' is neither true nor false"],
    ['yes', 0, '0 is neither true nor false'],
    ['dirs', '/srv', "'/srv' is not an array"],
    ['dirs', ['/srv', 7], '[1]: 7 is not a path'],
    ['dirs', new Array(1), '[0]: undefined is not a path'],
    ['dirs', { 0: '/', length: 1 }, 'an object is not an array'],
    ['dirs', ['a\0b'], '[0]: contains a NUL byte'],
    ['signal', { aborted: false }, 'an object is not an AbortSignal'],
    ['call', 'print', "'print' is not a function"],
  ]
  for (const [key, value, why] of bad) {
    t.throws(() => checkOptions(SCHEMA, { [key]: value }), {
      code: 'USAGE',
      argument: key,
      message: `${key}: ${why}`,
    })
  }
})

t.test('options are an object with known keys', async (t) => {
  t.strictSame({ ...checkOptions(SCHEMA, undefined) }, {})
  t.strictSame({ ...checkOptions(SCHEMA, { count: undefined, other: undefined }) }, {})
  for (const options of [null, 7, 'count', [], () => {}, 7n, SYMBOL]) {
    t.throws(() => checkOptions(SCHEMA, options), { code: 'USAGE', argument: 'options' })
  }
  for (const key of ['Count', 'toString', 'constructor', '__proto__x']) {
    t.throws(() => checkOptions(SCHEMA, { [key]: 1 }), {
      code: 'USAGE',
      message: `${key}: there is no such option`,
    })
  }
})

t.test('each option is read once, and what throws is told', async (t) => {
  let reads = 0
  const counting = {
    get count() {
      reads++
      return reads === 1 ? 4 : 'changed'
    },
  }
  t.equal(checkOptions(SCHEMA, counting).count, 4)
  t.equal(reads, 1)
  const reason = new Error('mine')
  const throwing = {
    get count() {
      throw reason
    },
  }
  t.throws(() => checkOptions(SCHEMA, throwing), { argument: 'count', cause: reason })
  const proxy = new Proxy(
    {},
    {
      ownKeys() {
        throw reason
      },
    },
  )
  t.throws(() => checkOptions(SCHEMA, proxy), { argument: 'options', cause: reason })
})

t.test('what is inherited from all objects is no option, what a class defines is', async (t) => {
  const all = Object.prototype as Record<string, unknown>
  all.yes = true
  try {
    t.equal(checkOptions(SCHEMA, {}).yes, undefined)
    t.equal(checkOptions(SCHEMA, undefined).yes, undefined)
  } finally {
    delete all.yes
  }
  t.equal(checkOptions(SCHEMA, Object.create({ count: 3 })).count, 3)
  const json = JSON.parse('{"__proto__": {"yes": true}}')
  t.throws(() => checkOptions(SCHEMA, json), { code: 'USAGE', message: /^__proto__: / })
})

t.test('records need their keys, and have no others', async (t) => {
  const rule = record<object>({ name: TEXT }, { count: whole(0, 9) })
  t.doesNotThrow(() => ownArgument('it', rule, { name: 'a', count: 1 }))
  t.throws(() => ownArgument('it', rule, {}), { message: 'it: name is missing' })
  t.throws(() => ownArgument('it', rule, { name: 7 }), { message: 'it: name: 7 is not a string' })
  t.throws(() => ownArgument('it', rule, { name: 'a', x: 1 }), {
    message: "it: unknown field 'x'",
  })
  t.throws(() => ownArgument('it', rule, { name: 'a', count: 10 }), {
    message: /^it: count: 10 /,
  })
  t.throws(() => ownArgument('it', rule, null), { message: 'it: null is not an object' })
})

t.test('show runs no code of the value, and is short', async (t) => {
  t.equal(show(EVIL), 'an object')
  t.equal(show(SYMBOL), 'a symbol')
  t.ok(show('x'.repeat(1e6)).length < 80)
})
