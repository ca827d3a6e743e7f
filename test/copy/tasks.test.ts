import fc from 'fast-check'
import t, { type Test } from 'tap'
import { Tasks } from '../../lib/copy/tasks.ts'
import type { Range } from '../../lib/extents/range-set.ts'

const GIB = 2 ** 30
/** So large that offsets pass 2^32 soon: 64 units are 16 TiB. */
const UNIT = 2 ** 38
const UNITS = 64

type State = 'toDo' | 'inFlight' | 'done' | 'discarded'
type Step = { what: 'start' | 'finish' | 'fail' | 'discard'; from: number; to: number }

const step: fc.Arbitrary<Step> = fc
  .tuple(
    // Discards leave nothing to do, so they had better be rare.
    fc.constantFrom('start', 'start', 'start', 'finish', 'fail', 'fail', 'discard'),
    fc.nat(UNITS),
    fc.nat(UNITS),
  )
  .map(([what, a, b]) => ({ what: what as Step['what'], from: Math.min(a, b), to: Math.max(a, b) }))

/** The rule, for one unit. */
function after(what: Step['what'], state: State): State {
  if (what === 'discard') return 'discarded'
  if (what === 'start') return state === 'toDo' ? 'inFlight' : state
  if (state !== 'inFlight') return state
  return what === 'finish' ? 'done' : 'toDo'
}

/** The longest runs of units in a state. */
function runsOf(states: readonly State[], state: State, from = 0, to = UNITS): Range[] {
  const runs: Range[] = []
  for (let unit = from; unit < to; unit++) {
    if (states[unit] !== state) continue
    const last = runs.at(-1)
    if (last && last.start + last.length === unit * UNIT) last.length += UNIT
    else runs.push({ start: unit * UNIT, length: UNIT })
  }
  return runs
}

const area = (start: number, end: number): Range => ({ start, length: end - start })

function has(t: Test, tasks: Tasks, toDo: readonly Range[], inFlight: readonly Range[]): void {
  t.strictSame([...tasks.toDo], toDo)
  t.strictSame([...tasks.inFlight], inFlight)
  t.equal(tasks.isComplete, toDo.length + inFlight.length === 0)
}

t.test('every byte goes its way by the rule', async (t) => {
  await fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      let states = new Array<State>(UNITS).fill('toDo')
      const tasks = new Tasks(UNITS * UNIT)
      for (const { what, from, to } of steps) {
        const taken = runsOf(states, what === 'start' ? 'toDo' : 'inFlight', from, to)
        const got = tasks[what](area(from * UNIT, to * UNIT))
        if (what !== 'finish') t.strictSame(got, taken)
        states = states.map((state, unit) =>
          unit >= from && unit < to ? after(what, state) : state,
        )
        has(t, tasks, runsOf(states, 'toDo'), runsOf(states, 'inFlight'))
      }
    }),
  )
})

t.test(
  'tasks that fail at random and are tried again bring all that was not discarded',
  async (t) => {
    const outcome = fc.constantFrom('finish', 'fail', 'discard')
    await fc.assert(
      fc.property(
        fc.array(outcome, { maxLength: 100 }),
        fc.integer({ min: 1, max: 9 }),
        (list, n) => {
          const outcomes = list.values()
          const brought = new Array<number>(UNITS).fill(0)
          const dropped = new Set<number>()
          const tasks = new Tasks(UNITS)
          // A round brings a unit or uses up an outcome.
          for (let round = 0; round < UNITS + 100 && !tasks.isComplete; round++) {
            for (const { start } of tasks.toDo) {
              for (const task of tasks.start({ start, length: n })) {
                const what = outcomes.next().value ?? 'finish'
                tasks[what](task)
                for (let unit = task.start; unit < task.start + task.length; unit++) {
                  if (what === 'finish') brought[unit]++
                  if (what === 'discard') dropped.add(unit)
                }
              }
            }
          }
          t.ok(tasks.isComplete)
          t.strictSame(
            brought,
            brought.map((_, unit) => (dropped.has(unit) ? 0 : 1)),
          )
        },
      ),
    )
  },
)

t.test('an area leaves the to-do set when its task starts', async (t) => {
  const tasks = new Tasks(100)
  has(t, tasks, [area(0, 100)], [])
  t.strictSame(tasks.start(area(20, 40)), [area(20, 40)])
  has(t, tasks, [area(0, 20), area(40, 100)], [area(20, 40)])
  t.strictSame(tasks.start(area(20, 40)), [], 'no task starts twice')
  t.strictSame(tasks.start(area(10, 50)), [area(10, 20), area(40, 50)])
  t.strictSame(tasks.start(area(90, 200)), [area(90, 100)], 'nothing is past the end')
})

t.test('it is done when its task finishes', async (t) => {
  const tasks = new Tasks(100)
  tasks.start(area(0, 100))
  tasks.finish(area(0, 60))
  has(t, tasks, [], [area(60, 100)])
  t.strictSame(tasks.fail(area(0, 60)), [], 'what is done cannot fail')
  t.strictSame(tasks.start(area(0, 60)), [], 'nor start')
  tasks.finish(area(60, 100))
  has(t, tasks, [], [])
})

t.test('it returns if the task fails', async (t) => {
  const tasks = new Tasks(100)
  tasks.start(area(0, 100))
  tasks.finish(area(0, 20))
  t.strictSame(tasks.fail(area(10, 40)), [area(20, 40)])
  has(t, tasks, [area(20, 40)], [area(40, 100)])
  t.strictSame(tasks.start(area(0, 100)), [area(20, 40)], 'and is tried again')
})

t.test('it never returns once discarded', async (t) => {
  const tasks = new Tasks(100)
  t.strictSame(tasks.discard(area(0, 10)), [], 'while it is to do')
  t.strictSame(tasks.start(area(0, 40)), [area(10, 40)])
  t.strictSame(tasks.discard(area(20, 30)), [area(20, 30)], 'while it is in flight')
  t.strictSame(tasks.fail(area(10, 40)), [area(10, 20), area(30, 40)])
  has(t, tasks, [area(10, 20), area(30, 100)], [])
  tasks.start(area(10, 20))
  tasks.finish(area(10, 20))
  t.strictSame(tasks.discard(area(10, 20)), [], 'when it is done')
  t.strictSame(tasks.start(area(0, 100)), [area(30, 100)])
})

t.test('a discard cancels the tasks inside it', async (t) => {
  const tasks = new Tasks(100)
  tasks.start(area(10, 20))
  tasks.start(area(30, 40))
  tasks.start(area(50, 60))
  t.strictSame(tasks.discard(area(5, 55)), [area(10, 20), area(30, 40), area(50, 55)])
  has(t, tasks, [area(0, 5), area(60, 100)], [area(55, 60)])
  tasks.finish(area(10, 20))
  t.strictSame(tasks.fail(area(30, 40)), [], 'whose end then changes nothing')
  has(t, tasks, [area(0, 5), area(60, 100)], [area(55, 60)])
  t.strictSame(tasks.fail(area(50, 60)), [area(55, 60)], 'a task half discarded')
})

t.test('an empty disk is complete', async (t) => {
  has(t, new Tasks(0), [], [])
})

t.test('a copy in order of 16 TiB keeps no more than its window', async (t) => {
  const size = 16 * 1024 * GIB
  const length = GIB
  const tasks = new Tasks(size)
  const window: Range[] = []
  let most = 0
  for (let start = 0; start < size; start += 2 * length) {
    tasks.discard({ start: start + length, length })
    window.push(...tasks.start({ start, length }))
    most = Math.max(most, [...tasks.toDo].length + [...tasks.inFlight].length)
    if (window.length < 16) continue
    // The oldest is the last to finish.
    for (const task of window.splice(0).reverse()) tasks.finish(task)
  }
  for (const task of window) tasks.finish(task)
  t.ok(tasks.isComplete)
  t.equal(most, 17, '16 tasks, and the rest of the disk')
})
