import t, { type Test } from 'tap'
import { fileCircles, folderCircles } from '../../scripts/floors/circles.ts'
import { CPP, type House, readHouse, type Side, TYPESCRIPT } from '../../scripts/floors/graph.ts'
import { planOf } from '../../scripts/floors/plan.ts'

function house(
  test: Test,
  side: Partial<Side>,
  files: Parameters<Test['testdir']>[0] & object,
): House {
  const root = test.testdir({ lib: files })
  return readHouse(root, { folder: 'lib', floors: [['a'], ['b']], ...TYPESCRIPT, ...side })
}

t.test('imports are found wherever their lines break, types and dynamic ones too', async (t) => {
  const { arrows, lines } = house(
    t,
    {},
    {
      a: {
        'one.ts': "import type { X } from './two.ts'\nimport {\n  y,\n} from '../b/three.ts'\n",
        'two.ts': "const x = await import('./one.ts')\nexport * from 'node:fs'\n",
      },
      b: { 'three.ts': '' },
    },
  )
  t.strictSame(arrows.get('a/one.ts'), [
    { to: 'a/two.ts', line: 1 },
    { to: 'b/three.ts', line: 4 },
  ])
  t.strictSame(arrows.get('a/two.ts'), [{ to: 'a/one.ts', line: 1 }])
  t.equal(lines.get('a/one.ts'), 4)
})

t.test('a circle of files is found, of types too, and a straight line is none', async (t) => {
  const found = house(
    t,
    {},
    {
      a: {
        'one.ts': "import type { X } from './two.ts'",
        'two.ts': "import { y } from './three.ts'",
        'three.ts': "import { z } from './one.ts'",
        'four.ts': "import { z } from './one.ts'",
      },
    },
  )
  t.strictSame(fileCircles(found), [['a/one.ts', 'a/two.ts', 'a/three.ts']])
  const straight = house(t, {}, { a: { 'one.ts': "import './two.ts'", 'two.ts': '' } })
  t.strictSame(fileCircles(straight), [])
})

t.test('folders of a room that import from each other are a circle', async (t) => {
  const found = house(
    t,
    {},
    {
      a: {
        x: { 'one.ts': "import '../y/two.ts'", 'three.ts': '' },
        y: { 'two.ts': "import '../x/three.ts'" },
      },
    },
  )
  t.strictSame(fileCircles(found), [])
  t.strictSame(folderCircles(found), [['a/x', 'a/y']])
})

t.test('a header and its source are one thing', async (t) => {
  const found = house(t, CPP, {
    a: {
      'job.h': '',
      'job.cc': '#include "a/pipeline.h"\n#include <vector>\n',
      'pipeline.h': '#include "a/job.h"\n',
    },
  })
  t.strictSame(fileCircles(found), [['a/job', 'a/pipeline']])
})

t.test('the plan names rooms from the top down, with sizes and what they stand on', async (t) => {
  const found = house(t, {}, { a: { 'one.ts': '\n\n' }, b: { 'two.ts': "import '../a/one.ts'\n" } })
  t.equal(
    planOf(found, { a: 'the ground', b: 'the roof' }),
    `lib/  2 files, median 2, largest 2 lines
  1  b          the roof
                1 file, median 1, largest 1 lines; on a
  0  a          the ground
                1 file, median 2, largest 2 lines
`,
  )
})
