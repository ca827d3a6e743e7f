/** The public API changes only knowingly; what is documented is there, and what is there is documented. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import * as library from '../../lib/index.ts'
import { describeApi, RECORD } from '../../scripts/api.ts'

const document = (name: string) =>
  readFileSync(new URL(`../../../docs/${name}`, import.meta.url), 'utf8')

t.test('it is as recorded; npm run api records a change', async (t) => {
  t.equal(describeApi(), readFileSync(RECORD, 'utf8'))
})

t.test('it has every function with its options', async (t) => {
  const text = describeApi()
  for (const name of Object.keys(library)) t.match(text, new RegExp(`\\b${name}\\b`))
  t.match(text, 'function fullBackup(')
  t.match(text, 'clusterSize')
  t.match(text, 'onProgress')
})

t.test('the table of functions in docs/library.md is complete', async (t) => {
  const table = /## Functions\n(.*?)\n## /s.exec(document('library.md'))![1]
  const named = [...table.matchAll(/^\| ([^|]*) \|/gm)].flatMap(([, cell]) =>
    [...cell.matchAll(/`([a-z]\w+)/g)].map(([, name]) => name),
  )
  const functions = Object.entries(library)
    .filter(([, value]) => typeof value === 'function' && !/^class/.test(String(value)))
    .map(([name]) => name)
  t.strictSame([...new Set(named)].sort(), functions.sort())
})
