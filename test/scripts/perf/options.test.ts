import t from 'tap'
import { parseOptions } from '../../../scripts/perf/options.ts'

const KNOWN = ['full-raw', 'sparse', 'restore']
const parse = (...args: string[]) => parseOptions(args, KNOWN)

t.test('options of the harness have defaults', async (t) => {
  t.match(parse(), { cases: KNOWN, quick: false, pairs: 5, help: false })
  t.equal(parse('--quick').pairs, 2)
})

t.test('options of the harness take what is given', async (t) => {
  t.same(parse('--only', 'restore,full-raw').cases, ['full-raw', 'restore'], 'in known order')
  t.equal(parse('--quick', '--pairs', '9').pairs, 9)
  t.equal(parse('--dir', '/somewhere').dir, '/somewhere')
  t.same(parse('--ours', 'node  old/main.js').ours, ['node', 'old/main.js'])
})

t.test('wrong options of the harness are refused', async (t) => {
  const usage = { code: 'USAGE' }
  t.throws(() => parse('--only', 'ful-raw'), { ...usage, message: /no case 'ful-raw'/ })
  for (const pairs of ['0', '-1', '2.5', 'x', '']) t.throws(() => parse(`--pairs=${pairs}`), usage)
  t.throws(() => parse('--ours', ' '), usage)
  t.throws(() => parse('--slow'), usage)
  t.throws(() => parse('stray'), usage)
})
