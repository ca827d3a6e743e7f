import { readFileSync } from 'node:fs'
import t from 'tap'
import { failuresOf, inSources, namedTests } from '../../scripts/tap-output.ts'

const OUTPUT = `TAP version 14
# Subtest: outer
    ok 1 - fine
    # Subtest: inner
        not ok 1 - numbers
          ---
          diff: |
            -2
            +1
          ...
        1..1
    not ok 2 - inner # time=3ms
      ---
      at: here
      ...
    1..2
not ok 1 - outer # time=7ms
  ---
  at: there
  ...
ok 2 - passes # time=1ms
ok 3 - needs a device # SKIP no loop devices
1..3
`

t.test('named tests are counted, not assertions, and not what was skipped', async (t) => {
  t.strictSame(namedTests(OUTPUT), { passed: 1, failed: 1 })
  t.strictSame(namedTests(''), { passed: 0, failed: 0 })
})

t.test('a failure is shown with its details, and the names of the tests around it', async (t) => {
  const shown = failuresOf(OUTPUT).split('\n')
  t.strictSame(
    shown.map((line) => line.trim()),
    [
      'not ok 1 - numbers',
      'diff: |',
      '-2',
      '+1',
      '',
      'not ok 2 - inner # time=3ms',
      'not ok 1 - outer # time=7ms',
    ],
  )
  t.equal(failuresOf('ok 1 - passes\n'), '')
})

t.test('places are named as they are in the sources', async (t) => {
  const file = 'dist/scripts/tap-output.js'
  const lines = readFileSync(file, 'utf8').split('\n')
  const line = lines.findIndex((text) => text.includes('function failuresOf')) + 1
  const sources = readFileSync('scripts/tap-output.ts', 'utf8').split('\n')
  const expected = sources.findIndex((text) => text.includes('function failuresOf')) + 1
  t.match(inSources(`at x (${file}:${line}:17)\n`), `at x (scripts/tap-output.ts:${expected}:`)
  t.equal(inSources('dist/none.js:1:2'), 'dist/none.js:1:2')
})
