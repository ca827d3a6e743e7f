import t from 'tap'
import { Turns, withTurns } from '../lib/turns.ts'

async function* forever() {
  for (let i = 0; ; i++) yield i
}

t.test(
  'work that never waits lets timers and signals through, and ends when aborted',
  async (t) => {
    const controller = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => controller.abort(reason), 1)
    const count = async () => {
      for await (const _ of withTurns(forever(), 'a disk', controller.signal));
    }
    await t.rejects(count(), { code: 'ABORTED', what: 'a disk', cause: reason })
  },
)

t.test('a signal that was aborted before ends the first step', async (t) => {
  const turns = new Turns('a disk', AbortSignal.abort())
  t.throws(() => turns.step(), { code: 'ABORTED' })
})

t.test('most steps wait for nothing', async (t) => {
  const turns = new Turns('a disk')
  let waits = 0
  for (let i = 0; i < 100; i++) if (turns.step()) waits++
  t.ok(waits <= 3)
})
