import t, { type Test } from 'tap'
import { whileFrozen } from '../../lib/qmp/frozen-guest.ts'
import { type AgentCommand, startFakeAgent } from '../support/fake-agent.ts'

const FREEZE = 'guest-fsfreeze-freeze'
const THAW = 'guest-fsfreeze-thaw'
const STATUS = 'guest-fsfreeze-status'

/** An agent that does something else than usual at one command. */
async function startOdd(
  t: Test,
  name: string,
  special: (command: AgentCommand, count: number) => boolean | Promise<boolean>,
) {
  let count = 0
  return await startFakeAgent(t, (command) =>
    command.execute === name ? special(command, ++count) : false,
  )
}

t.test('file systems are frozen meanwhile, and thawed after it', async (t) => {
  const agent = await startFakeAgent(t)
  const result = await whileFrozen(agent.path, async () => agent.state)
  t.strictSame(result, { value: 'frozen', fileSystems: 3 })
  t.equal(agent.state, 'thawed')
  t.strictSame(agent.commands, [FREEZE, STATUS, THAW, STATUS])
})

t.test('they are thawed when what is done meanwhile fails', async (t) => {
  const agent = await startFakeAgent(t)
  const fail = () => Promise.reject(new Error('no'))
  await t.rejects(whileFrozen(agent.path, fail), { message: 'no' })
  t.equal(agent.state, 'thawed')
})

t.test('a guest without file systems to freeze is no failure', async (t) => {
  const agent = await startOdd(t, FREEZE, ({ answer }) => {
    answer(0)
    return true
  })
  t.match(await whileFrozen(agent.path, async () => 1), { value: 1, fileSystems: 0 })
})

t.test('an agent that cannot freeze is asked no more', async (t) => {
  const agent = await startOdd(t, FREEZE, ({ refuse }) => {
    refuse('not here', 'CommandNotFound')
    return true
  })
  const body = async () => t.fail('nothing is frozen')
  await t.rejects(whileFrozen(agent.path, body), { code: 'IO', what: FREEZE, why: 'not here' })
  t.strictSame(agent.commands, [FREEZE])
})

t.test('a guest whose freezing fails half way is thawed', async (t) => {
  const agent = await startOdd(t, FREEZE, ({ refuse }) => {
    agent.state = 'frozen'
    refuse('failed to freeze /srv: I/O error')
    return true
  })
  await t.rejects(
    whileFrozen(agent.path, async () => 1),
    { code: 'IO', what: FREEZE, why: /\/srv/ },
  )
  t.equal(agent.state, 'thawed')
})

for (const way of ['takes too long', 'is cancelled']) {
  t.test(`a guest is thawed after its freezing ${way}, though it froze late`, async (t) => {
    const stop = new AbortController()
    let thaws = 0
    const agent = await startFakeAgent(t, async ({ execute, answer, followed }) => {
      if (execute === THAW) thaws++
      if (execute !== FREEZE) return false
      stop.abort()
      // Only once the sync that precedes the thaw is there.
      await followed
      agent.state = 'frozen'
      answer(3)
      return true
    })
    const slow = way === 'takes too long'
    const options = slow ? { freezeTimeoutMs: 1 } : { signal: stop.signal }
    const body = async () => t.fail('it is given up')
    const failure = { code: slow ? 'IO' : 'ABORTED', what: FREEZE }
    await t.rejects(whileFrozen(agent.path, body, options), failure)
    t.equal(agent.state, 'thawed')
    t.equal(thaws, 1)
  })
}

t.test('a guest that thawed by itself makes no point in time', async (t) => {
  const agent = await startFakeAgent(t)
  const body = async () => {
    agent.state = 'thawed'
  }
  await t.rejects(whileFrozen(agent.path, body), { code: 'IO', why: /did not stay frozen/ })
})

t.test('a thaw that fails once is tried again, on a new connection', async (t) => {
  const agent = await startOdd(t, THAW, ({ socket }, count) => {
    if (count > 1) return false
    socket.destroy()
    return true
  })
  t.match(await whileFrozen(agent.path, async () => 1), { value: 1, fileSystems: 3 })
  t.equal(agent.state, 'thawed')
})

t.test('that a guest may still be frozen is said, with what failed first', async (t) => {
  const agent = await startOdd(t, THAW, ({ refuse }) => {
    refuse('failed to thaw /')
    return true
  })
  const still =
    /the guest's file systems may still be frozen: guest-fsfreeze-thaw: failed to thaw \//
  await t.rejects(
    whileFrozen(agent.path, async () => 1),
    { code: 'IO', why: still },
  )
  const fail = () => Promise.reject(new Error('no'))
  await t.rejects(whileFrozen(agent.path, fail), { why: still, cause: { message: 'no' } })
})

t.test('an agent that is silent from then on is given up in time', async (t) => {
  let silent = false
  const agent = await startFakeAgent(t, () => silent)
  const body = async () => {
    silent = true
  }
  await t.rejects(whileFrozen(agent.path, body, { thawTimeoutMs: 20 }), {
    code: 'IO',
    errno: 'ETIMEDOUT',
    why: /may still be frozen/,
  })
})
