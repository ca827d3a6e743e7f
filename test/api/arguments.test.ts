/** Every public function, called wrongly: USAGE with the argument's name, and nothing is done. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as library from '../../lib/index.ts'
import { BackupError, isBackupError } from '../../lib/index.ts'
import { qemuImg } from '../support/qemu.ts'

// biome-ignore lint/suspicious/noExplicitAny: they are called as JavaScript would
const lib = library as any

/** What is no public function that does work: classes and plain conversions. */
const OTHERS = [
  'BackupError',
  'BadBitmapChain',
  'BitmapOperationError',
  'QemuImgError',
  'isBackupError',
  'nameFromBytes',
  'nameToBytes',
]

/** Good arguments of each function, by which one at a time is replaced. */
const CALLS: Record<string, { args: unknown[]; names: string[]; options?: number }> = {
  fullBackup: { args: ['disk', 'new'], names: ['source', 'target'], options: 2 },
  incrementalBackup: {
    args: ['disk', 'new', { bitmap: 'b', backing: 'disk' }],
    names: ['source', 'target'],
    options: 2,
  },
  fullBackupStream: { args: ['disk'], names: ['source'], options: 1 },
  incrementalBackupStream: {
    args: ['disk', { bitmap: 'b', backing: 'disk' }],
    names: ['source'],
    options: 1,
  },
  restore: { args: ['disk', 'new'], names: ['backup', 'target'], options: 2 },
  openSource: { args: ['disk'], names: ['source'], options: 1 },
  editBitmap: {
    args: ['disk', 'x', [{ kind: 'add' }]],
    names: ['image', 'bitmap', 'operations'],
    options: 3,
  },
  listBitmaps: { args: ['disk'], names: ['image'], options: 1 },
  readBitmap: { args: ['disk', 'b', () => {}], names: ['image', 'bitmap', 'take'], options: 3 },
  readBitmapChain: { args: ['disk'], names: ['top'], options: 1 },
  createSnapshot: { args: ['disk', 'new'], names: ['backing', 'overlay'], options: 2 },
  commitImage: { args: ['disk'], names: ['top'], options: 1 },
  rebaseImage: { args: ['disk', 'none'], names: ['image', 'backing'], options: 2 },
  diffToBitmap: {
    args: ['disk', 'disk', 'x'],
    names: ['image', 'baseline', 'bitmap'],
    options: 3,
  },
  diffDisks: { args: ['disk', 'disk'], names: ['disk', 'baseline'], options: 2 },
  compareWithQemuImg: { args: [['disk']], names: ['images'], options: 1 },
  verifyManifests: { args: [['disk']], names: ['images'], options: 1 },
  repairRepository: { args: ['new'], names: ['repository'], options: 1 },
  verifyRepository: { args: ['new'], names: ['repository'], options: 1 },
  reportImage: { args: ['disk'], names: ['image'], options: 1 },
  reportRepository: { args: ['new'], names: ['repository'], options: 1 },
  imageInfo: { args: ['disk'], names: ['image'], options: 1 },
  backingChainInfo: { args: ['disk'], names: ['image'], options: 1 },
  checkImage: { args: ['disk'], names: ['image'], options: 1 },
  mapImage: { args: ['disk'], names: ['image'], options: 1 },
  compareImages: { args: [['disk', 'disk']], names: ['images'], options: 1 },
  measureImage: { args: ['disk'], names: ['image'], options: 1 },
  measureSize: { args: [4096n], names: ['size'], options: 1 },
  backupMachine: {
    args: ['disk:a=disk', 'new', { name: 'm' }],
    names: ['machine', 'repository'],
    options: 2,
  },
  inspectMachine: { args: ['disk:a=disk', { name: 'm' }], names: ['machine'], options: 1 },
  abortMachine: { args: ['disk:a=disk', { name: 'm' }], names: ['machine'], options: 1 },
  copyRepository: { args: ['new', 'new'], names: ['from', 'to'], options: 2 },
  createImageServer: { args: [], names: [], options: 0 },
  serveImages: { args: [{ listen: ['unix:s'], control: 'unix:c' }], names: [], options: 0 },
  listRepository: { args: ['new'], names: ['repository'], options: 1 },
  pruneRepository: { args: ['new', { keepLast: 1 }], names: ['repository'], options: 1 },
  restoreMachine: {
    args: ['new', 'm', 'new'],
    names: ['repository', 'machine', 'target'],
    options: 3,
  },
  validateBitmapChain: { args: [[]], names: ['chain'] },
  factsFromQmp: { args: [[], []], names: ['nodes', 'chain'] },
}

const WRONG: [string, unknown][] = [
  ['undefined', undefined],
  ['null', null],
  ['a number', 7],
  ['NaN', Number.NaN],
  ['a bigint', -7n],
  ['a boolean', true],
  ['a symbol', Symbol('x')],
  ['an empty object', {}],
  ['a function with an argument', class {}],
  ['an array of numbers', [7]],
  [
    'an object that throws',
    new Proxy(
      {},
      {
        get() {
          throw new Error('trap')
        },
        ownKeys() {
          throw new Error('trap')
        },
      },
    ),
  ],
]

/** Calls a function, and takes all that it gives. */
async function call(name: string, args: unknown[]): Promise<unknown> {
  try {
    const result = await lib[name](...args)
    if (result?.[Symbol.asyncIterator]) for await (const _ of result);
    await result?.close?.()
    return 'resolved'
  } catch (error) {
    return error
  }
}

t.test('the table names every public function', async (t) => {
  const functions = Object.keys(lib).filter((name) => !OTHERS.includes(name))
  t.strictSame(functions.sort(), Object.keys(CALLS).sort())
})

t.test('wrong arguments of every function are USAGE errors that name them', async (t) => {
  const dir = t.testdir()
  process.chdir(dir)
  qemuImg('create', '-q', '-f', 'qcow2', 'disk', '1M')
  const before = readFileSync('disk')
  for (const [name, { args, names, options }] of Object.entries(CALLS)) {
    for (const [i, argument] of names.entries()) {
      for (const [what, value] of WRONG) {
        if (argument === 'take' && typeof value === 'function') continue
        const error = await call(name, args.with(i, value))
        t.ok(isBackupError(error), `${name}: ${argument} is ${what}: ${error}`)
        t.match(error, { code: 'USAGE', argument }, `${name}: ${argument} is ${what}`)
      }
    }
    if (options === undefined) continue
    for (const [what, value] of WRONG) {
      if (value === undefined || typeof value === 'function' || what === 'an empty object') continue
      const error = await call(name, Object.assign([...args], { [options]: value }))
      t.match(error, { code: 'USAGE', argument: 'options' }, `${name}: options are ${what}`)
    }
    const given = (args[options] ?? {}) as object
    for (const [key, value] of [
      ['frobnicate', 1],
      ['signal', 'now'],
      ['allowPaths', '/'],
      ['format', 'vmdk'],
      ['backingFormat', 7],
      ['force', 'false'],
      ['forceShare', 1],
    ] as const) {
      const error = await call(
        name,
        Object.assign([...args], { [options]: { ...given, [key]: value } }),
      )
      t.match(error, { code: 'USAGE', argument: key }, `${name}: ${key}`)
    }
  }
  t.strictSame(readdirSync(dir), ['disk'], 'nothing was made')
  t.ok(readFileSync('disk').equals(before), 'nothing was changed')
})

t.test('- is no name of a target', async (t) => {
  const dir = t.testdir()
  process.chdir(dir)
  qemuImg('create', '-q', '-f', 'qcow2', 'disk', '1M')
  for (const [argument, calling] of [
    ['target', () => lib.fullBackup('disk', '-')],
    ['target', () => lib.incrementalBackup('disk', '-', { bitmap: 'b', backing: 'disk' })],
    ['target', () => lib.restore('disk', '-')],
    ['target', () => lib.restoreMachine('new', 'm', '-')],
    ['overlay', () => lib.createSnapshot('disk', '-')],
    ['output', () => lib.diffDisks('disk', 'disk', { output: '-' })],
  ] as const) {
    await t.rejects(calling(), { code: 'USAGE', argument, message: /standard output/ })
  }
  t.strictSame(readdirSync(dir), ['disk'], 'nothing was made')
  await lib.fullBackup('disk', './-')
  t.strictSame(readdirSync(dir).sort(), ['-', 'disk'])
})

t.test('wrong operations on bitmaps are USAGE errors', async (t) => {
  const image = join(t.testdir(), 'disk')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  for (const [operation, why] of [
    [{ kind: 'ad' }, /kind: 'ad' is not one of add, remove, remove-all, clear/],
    [{}, /kind: undefined is not one of/],
    ['add', /'add' is not an operation/],
    [{ kind: 'add', granularity: '64k' }, /granularity: '64k' is not a power of two/],
    [{ kind: 'add', granularit: 4096 }, /unknown field 'granularit'/],
    [{ kind: 'merge' }, /source is missing/],
    [{ kind: 'merge', source: 'b', from: '' }, /from: the name is empty/],
    [{ kind: 'clear', granularity: 4096 }, /unknown field 'granularity'/],
  ] as const) {
    await t.rejects(lib.editBitmap(image, 'b', [operation]), {
      code: 'USAGE',
      argument: 'operations',
      message: why,
    })
  }
  t.strictSame(await lib.listBitmaps(image), [])
})

t.test('what a caller function does wrong never hides how a backup ended', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  const bytes = new Uint8Array(65536).fill(1)
  const source = (close: () => unknown) => ({
    name: 'mine',
    size: 65536,
    extents: () => [{ start: 0, length: 65536, zero: false }],
    read: async () => bytes,
    close,
  })
  const failing: [string, () => unknown][] = [
    [
      'throws',
      () => {
        throw new Error('no')
      },
    ],
    ['rejects', () => Promise.reject(new Error('no'))],
  ]
  for (const [how, close] of failing) {
    const done = await lib.fullBackup(source(close), at(how))
    t.match(done, { dataBytes: 65536, notes: ['close() of mine failed: no'] })
    const reason = new Error('the reason')
    const signal = AbortSignal.abort(reason)
    const aborted = lib.fullBackup(source(close), at('not'), { signal })
    await t.rejects(aborted, { code: 'ABORTED', cause: reason })
  }
  writeFileSync(at('raw'), bytes)
  const rejecting = { onProgress: () => Promise.reject(new Error('no')) }
  const done = await lib.fullBackup(at('raw'), at('progress'), rejecting)
  t.match(done.notes, ['onProgress() failed: no'])
  t.strictSame(readdirSync(dir).sort(), ['progress', 'raw', 'rejects', 'throws'])
})

t.test(
  'functions that throw end the call with CALLBACK and their own error as the cause',
  async (t) => {
    const image = join(t.testdir(), 'disk')
    qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
    await lib.editBitmap(image, 'b', [{ kind: 'add' }])
    const mine = new Error('mine')
    const throwing = () => {
      throw mine
    }
    for (const calling of [
      () => lib.readBitmap(image, 'b', throwing),
      () => lib.diffDisks(image, image, { take: throwing }),
      () => lib.compareImages([image, image], { onProgress: throwing }),
      async () => {
        for await (const _ of lib.mapImage(image, { onOpen: throwing }));
      },
    ]) {
      const error = await calling().catch((thrown: unknown) => thrown)
      t.type(error, BackupError)
      t.match(error, { code: 'CALLBACK' })
      t.equal(error.cause, mine)
    }
  },
)

t.test('a signal that is aborted ends every function that takes one', async (t) => {
  process.chdir(t.testdir())
  qemuImg('create', '-q', '-f', 'qcow2', 'disk', '1M')
  const reason = new Error('the reason')
  const signal = AbortSignal.abort(reason)
  for (const [name, { args, options }] of Object.entries(CALLS)) {
    if (options === undefined || ['measureSize', 'createImageServer'].includes(name)) continue
    const given = { ...(args[options] as object), signal }
    const error = await call(name, Object.assign([...args], { [options]: given }))
    t.match(error, { code: 'ABORTED' }, name)
    t.equal((error as Error).cause, reason, name)
  }
  t.strictSame(readdirSync('.'), ['disk'])
})

t.test('a name with a NUL byte is refused: QEMU reads it as another', async (t) => {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '1M')
  const before = readFileSync(disk)
  for (const name of ['\0', 'a\0b']) {
    const calls: (() => Promise<unknown>)[] = [
      () => library.editBitmap(disk, name, [{ kind: 'add' }]),
      () => library.diffToBitmap(disk, disk, name),
      () => library.editBitmap(disk, 'a', [{ kind: 'add' }, { kind: 'merge', source: name }]),
    ]
    for (const call of calls) {
      const done = call().then(() => {})
      await t.rejects(done, { code: 'USAGE', message: /contains a NUL byte/ })
    }
  }
  t.ok(readFileSync(disk).equals(before))
})

t.test('names as bytes and back; what is no name is refused', async (t) => {
  const bytes = Uint8Array.of(0x64, 0xe9, 0x2f)
  t.strictSame(Uint8Array.from(library.nameToBytes(library.nameFromBytes(bytes))), bytes)
  for (const wrong of [undefined, null, 5, 'text', [100], {}]) {
    t.throws(() => lib.nameFromBytes(wrong), { code: 'USAGE', argument: 'bytes' })
  }
  for (const wrong of [undefined, null, 5, [100], {}, 'a\0']) {
    t.throws(() => lib.nameToBytes(wrong), { code: 'USAGE', argument: 'name' })
  }
})
