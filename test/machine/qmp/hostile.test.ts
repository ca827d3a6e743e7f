/** Monitors whose answers are not QEMU's: every one ends in an error that says so. */
import t, { type Test } from 'tap'
import { isBackupError } from '../../../lib/errors.ts'
import { makeInstant } from '../../../lib/machine/qmp/freeze.ts'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { planFreeze } from '../../../lib/machine/qmp/plan-freeze.ts'
import { Watch } from '../../../lib/machine/qmp/watch.ts'
import { QmpClient } from '../../../lib/qmp/client.ts'
import { startMonitor } from '../../support/qmp-server.ts'

const NODE = {
  'node-name': 'top',
  drv: 'qcow2',
  file: '/d/top',
  image: { 'virtual-size': 2 ** 20 },
}

/** What a QEMU with one disk answers. */
const SOUND: Record<string, unknown> = {
  'query-qmp-schema': [
    { name: 'blockdev-backup', 'arg-type': '1' },
    { name: '1', members: [{ name: 'device', type: 'str' }] },
    { name: 'blockdev-add', 'arg-type': '2' },
    {
      name: '2',
      variants: [
        { case: 'copy-before-write', type: '3' },
        { case: 'snapshot-access', type: '4' },
      ],
    },
    { name: '3', members: [{ name: 'on-cbw-error', type: '5' }] },
    { name: '4', members: [] },
    { name: 'x-debug-query-block-graph' },
  ],
  'query-name': { name: 'guest' },
  'query-status': { status: 'running' },
  'query-block': [{ device: '', qdev: 'disk0', inserted: { 'node-name': 'top', ro: false } }],
  'query-named-block-nodes': [NODE, { 'node-name': 'file', drv: 'file', file: '/d/top' }],
  'x-debug-query-block-graph': {
    nodes: [
      { id: 1, name: 'top', type: 'block-driver' },
      { id: 2, name: 'file', type: 'block-driver' },
    ],
    edges: [{ parent: 1, child: 2, name: 'file' }],
  },
  'query-jobs': [],
  'query-block-exports': [],
}

async function startQemu(t: Test, answers: Record<string, unknown>) {
  return await startMonitor(t, ({ execute = '', id }, send) => {
    send({ return: execute in answers ? answers[execute] : {}, id })
  })
}

/** Everything that a machine is asked. */
async function useMachine(path: string): Promise<void> {
  const machine = await openQmpMachine(path)
  try {
    await machine.disks()
    await machine.leftovers()
    await machine.clean()
  } finally {
    await machine.close()
  }
}

/** Copies of a value, each with one part of it exchanged. */
function* damaged(value: unknown): Generator<unknown> {
  yield null
  yield 7
  yield [7]
  yield { toString: 7, length: 2 ** 32 }
  if (typeof value !== 'object' || value === null) return
  for (const [key, inner] of Object.entries(value)) {
    for (const other of damaged(inner)) {
      if (Array.isArray(value)) yield value.with(Number(key), other)
      else yield { ...value, [key]: other }
    }
  }
}

t.test('a sound monitor', async (t) => {
  const { path } = await startQemu(t, SOUND)
  await useMachine(path)
})

t.test('answers of other shapes', async (t) => {
  let answers = SOUND
  const { path } = await startMonitor(t, ({ execute = '', id }, send) => {
    send({ return: execute in answers ? answers[execute] : {}, id })
  })
  let refused = 0
  for (const [command, sound] of Object.entries(SOUND)) {
    for (const answer of damaged(sound)) {
      answers = { ...SOUND, [command]: answer }
      const error = await useMachine(path).catch((error) => error)
      if (error !== undefined) refused++
      if (error === undefined || (isBackupError(error) && error.code !== 'INTERNAL')) continue
      t.fail(`${command}: ${JSON.stringify(answer)}: ${error.stack}`)
    }
  }
  t.ok(refused > 50, `${refused} were refused`)
})

t.test('nodes that are above themselves, or very deep', async (t) => {
  const names = Array.from({ length: 5000 }, (_, i) => `n${i}`)
  const deep = names.slice(1).map((_, i) => ({ parent: i, child: i + 1, name: 'backing' }))
  const circle = [
    { parent: 0, child: 1, name: 'backing' },
    { parent: 1, child: 0, name: 'backing' },
  ]
  for (const edges of [circle, [{ parent: 0, child: 0, name: 'file' }], deep]) {
    const { path } = await startQemu(t, {
      ...SOUND,
      'query-named-block-nodes': names.map((name) => ({ ...NODE, 'node-name': name, drv: 'raw' })),
      'x-debug-query-block-graph': {
        nodes: names.map((name, id) => ({ id, name, type: 'block-driver' })),
        edges,
      },
    })
    await t.rejects(useMachine(path), { code: 'IO', why: /above themselves/ })
  }
})

t.test('events of other shapes', async (t) => {
  const monitor = await startQemu(t, SOUND)
  const client = await QmpClient.connect(monitor.path)
  t.teardown(() => client.close())
  const watch = new Watch(client, '0123456789ab', 'qmp:test', ['top'])
  watch.start([])
  for (const value of [null, 7, [], { toString: 7 }]) {
    const data = { id: value, 'node-name': value, status: value, reason: value }
    monitor.send({ event: 'JOB_STATUS_CHANGE', data })
    monitor.send({ event: 'BLOCK_IO_ERROR', data })
    monitor.send({ event: 'BLOCK_EXPORT_DELETED', data })
  }
  await client.execute('query-status')
  t.notOk(watch.signal.aborted, 'of none of ours')
  watch.stop()
})

t.test('a guest that was stopped for the instant goes on at once when that fails', async (t) => {
  const refuse = new Set(['qom-set'])
  const monitor = await startMonitor(t, ({ execute = '', id }, send) => {
    if (refuse.has(execute)) send({ error: { class: 'GenericError', desc: 'no' }, id })
    else send({ return: execute === 'query-status' ? { status: 'running' } : {}, id })
  })
  const client = await QmpClient.connect(monitor.path)
  t.teardown(() => client.close())
  const features = {
    ...{ jobBreaksSnapshot: false, jobMinClusterSize: false, filterBreaksSnapshot: true },
    ...{ filterTimeout: true, filterMinClusterSize: true, needsSingleClusters: false },
    needsMainThread: false,
  }
  const disks = ['a', 'b'].map((name) => ({
    ...{ name, node: name, root: name, device: `/machine/peripheral/${name}`, chain: [name] },
    ...{ format: 'qcow2', virtualSize: 2 ** 20, bitmaps: [] },
    ...{ full: { possible: true }, incremental: { possible: true } },
  }))
  const run = '0123456789ab'
  const options = { disks: disks.map(({ name }) => ({ name })), run, point: 'p' }
  const plan = planFreeze(options, disks, features, 'qmp:test')
  const instant = () => makeInstant(client, plan, options, features, run)
  await t.rejects(instant(), { message: /qom-set/ })
  const sent = () => monitor.commands.map(({ execute }) => execute)
  t.strictSame(sent().slice(-4), ['stop', 'blockdev-add', 'qom-set', 'cont'])
  refuse.clear()
  await instant()
  t.strictSame(sent().slice(-2), ['cont', 'block-dirty-bitmap-remove'])
})
