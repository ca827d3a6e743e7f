/** Rounds of backups of disks at rest: every point equals the disks as they were then. */
import {
  copyFileSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type BackupMachineOptions,
  type BackupMachineResult,
  backupMachine,
  listRepository,
  restoreMachine,
} from '../../lib/index.ts'
import { openMachine } from '../../lib/machine/open-machine.ts'
import { effort } from '../support/effort.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(900_000)

function back(m: RestingMachine, options: BackupMachineOptions = {}): Promise<BackupMachineResult> {
  return backupMachine(m.machine, m.repository, { name: 'web', ...options })
}

/** `vda incremental, vdb full` */
function kindsOf({ disks }: Pick<BackupMachineResult, 'disks'>): string {
  return disks.map(({ name, kind }) => `${name} ${kind}`).join(', ')
}

const INCREMENTAL = 'vda incremental, vdb full'

t.test('every point of several rounds holds what the disks held', async (t) => {
  const m = new RestingMachine(t)
  const saved: { point: string; contents: Buffer[] }[] = []
  const change = [
    () => {},
    () => qemuIo(m.qcow2, 'write -q -z 1M 3M', 'discard -q 6M 1M'),
    () => qemuImg('resize', '-q', m.qcow2, '20M'),
    () => qemuImg('snapshot', '-c', 'inside', m.qcow2),
    () => qemuImg('resize', '-q', '--shrink', m.qcow2, '9M'),
  ]
  for (const [i, act] of change.entries()) {
    m.write(i)
    if (i === 4) qemuImg('snapshot', '-d', 'inside', m.qcow2)
    act()
    const contents = m.contents()
    const result = await back(m, { verify: i === 1, compress: i === 2 ? 'zstd' : undefined })
    t.equal(kindsOf(result), i === 0 ? 'vda full, vdb full' : INCREMENTAL, `round ${i}`)
    t.equal(result.parent, saved.at(-1)?.point)
    t.strictSame(result.notes, [])
    for (const disk of result.disks) {
      const { dataBytes, zeroBytes, unchangedBytes, virtualSize } = disk
      t.equal(dataBytes + zeroBytes + unchangedBytes, virtualSize)
      t.equal(statSync(disk.target).mode & 0o777, 0o600)
    }
    saved.push({ point: result.point, contents })
    m.requireTidy(`round ${i}`)
  }
  t.equal(statSync(m.folder).mode & 0o777, 0o700)
  for (const { point, contents } of saved) m.compare(point, contents)
  const target = join(m.directory, 'restored')
  const restored = await restoreMachine(m.repository, 'web', target)
  t.equal(restored.point, saved.at(-1)?.point)
  t.ok(readFileSync(join(target, 'vda.raw')).equals(saved[4].contents[0]))
  t.ok(readFileSync(join(target, 'vdb.raw')).equals(saved[4].contents[1]))
  const one = join(m.directory, 'one.raw')
  await restoreMachine(m.repository, 'web', one, { point: saved[1].point, disk: 'vda' })
  t.ok(readFileSync(one).equals(saved[1].contents[0]))
  const listed = await listRepository(m.repository)
  t.strictSame(
    listed.map(({ point }) => point),
    saved.map(({ point }) => point),
  )
})

t.test(
  'without a checkpoint the disks are untouched, and the next goes on from the last bitmap',
  async (t) => {
    const m = new RestingMachine(t)
    const untouched = readFileSync(m.qcow2)
    t.equal(kindsOf(await back(m, { noCheckpoint: true, checkpoint: 'p0' })), 'vda full, vdb full')
    t.ok(readFileSync(m.qcow2).equals(untouched))
    t.match(await back(m, { checkpoint: 'p1' }), {
      disks: [{ kind: 'full', reason: 'no bitmap began with p0' }, {}],
    })
    m.write(1)
    t.match(await back(m, { noCheckpoint: true, checkpoint: 'p2' }), { parent: 'p1' })
    m.write(2)
    const contents = m.contents()
    t.match(await back(m, { checkpoint: 'p3' }), {
      parent: 'p1',
      disks: [{ kind: 'incremental' }, {}],
    })
    m.compare('p3', contents)
    t.strictSame(m.bitmaps(), ['p3'])
    await back(m, { checkpoint: 'p4', old: 'keep' })
    t.strictSame(m.bitmaps(), ['p3', 'p4'])
    qemuImg('bitmap', '--add', m.qcow2, 'somebody')
    await back(m, { checkpoint: 'p5' })
    t.strictSame(m.bitmaps(), ['somebody', 'p5'], 'those of others stay')
    await back(m, { checkpoint: 'p6', disks: ['vdb'] })
    t.strictSame(m.bitmaps(), ['somebody', 'p5'], 'the bitmap of a disk that is left out stays')
    t.match(await back(m, { checkpoint: 'p7', exclude: ['vdb'] }), {
      parent: 'p5',
      disks: [{ name: 'vda' }],
    })
  },
)

/** What makes the next backup a full one, and the reason. */
const BREAKS: [string, (m: RestingMachine) => void, RegExp][] = [
  [
    'the bitmap is removed',
    (m) => qemuImg('bitmap', '--remove', m.qcow2, 'p1'),
    /'p1' of the last backup is gone/,
  ],
  [
    'the bitmap is disabled',
    (m) => qemuImg('bitmap', '--disable', m.qcow2, 'p1'),
    /cannot be used: .*disabled/,
  ],
  [
    'the parent is missing',
    (m) => rmSync(join(m.folder, 'vda.p1.qcow2')),
    /p1\.qcow2: no such file/,
  ],
  [
    'the parent was written to',
    (m) => qemuIo(join(m.folder, 'vda.p1.qcow2'), 'write -q -P 9 0 64k'),
    /image 'vda.p1.qcow2' of a backup (has|holds other content)/,
  ],
  [
    'the image below the parent was written to, its size as before',
    (m) => qemuIo(join(m.folder, 'vda.p0.qcow2'), 'write -q -P 9 0 4k'),
    /image 'vda.p0.qcow2' of a backup holds other content/,
  ],
  [
    'the point below is another one of the same name',
    (m) => {
      const path = join(m.folder, 'p0.json')
      writeFileSync(path, JSON.stringify({ ...m.records()[0], id: '0123456789ab' }))
    },
    /point 'p0' is another one/,
  ],
  [
    'the record below is gone',
    (m) => renameSync(join(m.folder, 'p0.json'), join(m.directory, 'p0.json')),
    /point 'p0', on which 'vda.p1.qcow2' builds, is gone/,
  ],
]

for (const [what, act, reason] of BREAKS.filter((_, i) => i % effort(2, 1) === 0)) {
  t.test(`${what}: the next is full, and says why`, async (t) => {
    const m = new RestingMachine(t)
    qemuIo(m.qcow2, 'write -q -P 1 0 64k')
    await back(m, { checkpoint: 'p0' })
    m.write(1)
    await back(m, { checkpoint: 'p1' })
    act(m)
    m.write(2)
    const contents = m.contents()
    const bitmaps = m.bitmaps()
    const options = { checkpoint: 'p2', disks: ['vda'] }
    const error = { code: 'BAD_BITMAP', message: reason } as const
    await t.rejects(back(m, { ...options, incremental: true }), error)
    t.strictSame(m.bitmaps(), bitmaps)
    const result = await back(m, { checkpoint: 'p2' })
    t.match(result.disks[0], { kind: 'full', reason })
    m.compare('p2', contents)
    t.match(await back(m, { ...options, checkpoint: 'p3' }), { disks: [{ kind: 'incremental' }] })
  })
}

t.test('no image is restored that is not as it was recorded, nor is one over it', async (t) => {
  const m = new RestingMachine(t)
  const contents: Buffer[] = []
  for (const checkpoint of ['p0', 'p1', 'p2']) {
    m.write(contents.length)
    contents.push(m.contents()[0])
    await back(m, { checkpoint })
  }
  const target = join(m.directory, 'restored.raw')
  const restored = (point: string) =>
    restoreMachine(m.repository, 'web', target, { point, disk: 'vda', force: true })
  const refused = async (point: string, message: RegExp) => {
    await t.rejects(restored(point), { code: 'BAD_IMAGE', message })
    t.ok(readFileSync(target).equals(contents[0]), 'what stood there stays')
  }
  const file = (name: string) => join(m.folder, name)
  await restored('p0')

  const record = readFileSync(file('p1.json'), 'utf8')
  writeFileSync(file('p1.json'), record.replace(/"id": "[0-9a-f]+"/, '"id": "0123456789ab"'))
  await refused('p2', /'p1' is another one than that on which 'vda.p2.qcow2' builds/)
  writeFileSync(file('p1.json'), '{')
  await restored('p0')
  await t.rejects(restored('p2'), { code: 'BAD_RECORD' })
  rmSync(file('p1.json'))
  await refused('p2', /the point 'p1', on which 'vda.p2.qcow2' builds, is gone/)
  writeFileSync(file('p1.json'), record)

  const image = readFileSync(file('vda.p1.qcow2'))
  qemuIo(file('vda.p1.qcow2'), 'write -q -P 99 0 64k')
  await refused('p2', /image 'vda.p1.qcow2' of a backup (has|holds other content)/)
  await restored('p0')
  rmSync(file('vda.p1.qcow2'))
  await refused('p1', /vda.p1.qcow2/)
  writeFileSync(file('vda.p1.qcow2'), image)
  await restored('p2')
  t.ok(readFileSync(target).equals(contents[2]), 'a copy of the image is as good')
})

t.test('an image that was only copied is read once, and trusted', async (t) => {
  const m = new RestingMachine(t)
  m.write(1)
  await back(m, { checkpoint: 'p0' })
  const image = join(m.folder, 'vda.p0.qcow2')
  const { mtimeMs } = statSync(image)
  copyFileSync(image, `${image}.copy`)
  renameSync(`${image}.copy`, image)
  utimesSync(image, 1, 1)
  t.match(await back(m, { checkpoint: 'p1' }), { disks: [{ kind: 'incremental' }, {}] })
  t.equal(Math.trunc(statSync(image).mtimeMs), Math.trunc(mtimeMs), 'it need not be read again')
})

t.test('a lost bitmap is made up for by comparing', async (t) => {
  const m = new RestingMachine(t)
  qemuIo(m.qcow2, 'write -q -P 1 0 8M')
  await back(m, { checkpoint: 'p0' })
  qemuImg('bitmap', '--remove', m.qcow2, 'p0')
  m.write(3)
  qemuIo(m.qcow2, 'write -q -z 4M 1M')
  const contents = m.contents()
  const result = await back(m, { checkpoint: 'p1', rebuild: true, incremental: true })
  t.match(result.disks, [
    {
      kind: 'incremental',
      reason: /gone; what changed since p0 was found by comparing/,
      parent: 'p0',
    },
    { kind: 'incremental' },
  ])
  t.ok(result.disks[0].dataBytes <= 192 * 1024, `${result.disks[0].dataBytes} bytes`)
  m.compare('p1', contents)
  m.write(4)
  const next = m.contents()
  t.match(await back(m, { checkpoint: 'p2' }), {
    disks: [{ kind: 'incremental', parent: 'p1' }, {}],
  })
  m.compare('p2', next)
})

t.test('hooks, progress and an abort', async (t) => {
  const m = new RestingMachine(t)
  m.write(1)
  const told: string[] = []
  const result = await back(m, {
    beforeFreeze: () => void told.push('before'),
    afterFreeze: async () => void told.push('after'),
    onDisk: ({ name, kind }) => void told.push(`${name} ${kind}`),
    onProgress: ({ position, disks }) => {
      if (told.at(-1) === 'after') told.push(`${position} of ${disks?.map(({ name }) => name)}`)
    },
  })
  t.strictSame(told.slice(0, 3), ['before', 'after', '0 of vda,vdb'])
  t.strictSame(told.slice(3, 5).sort(), ['vda full', 'vdb full'])
  m.requireTidy('once')
  const failures: [string, BackupMachineOptions, string][] = [
    ['beforeFreeze', { beforeFreeze: () => Promise.reject(new Error('no')) }, 'CALLBACK'],
    ['afterFreeze', { afterFreeze: () => Promise.reject(new Error('no')) }, 'CALLBACK'],
    ['onDisk', { onDisk: () => Promise.reject(new Error('no')) }, 'CALLBACK'],
    [
      'onProgress',
      {
        onProgress: () => {
          throw new Error('no')
        },
      },
      'CALLBACK',
    ],
    ['signal', { signal: AbortSignal.abort() }, 'ABORTED'],
  ]
  for (const [what, options, code] of failures) {
    await t.rejects(back(m, options), { code }, what)
    m.requireTidy(what)
  }
  const controller = new AbortController()
  const onDisk = () => controller.abort()
  await t.rejects(back(m, { signal: controller.signal, onDisk }), { code: 'ABORTED' })
  m.requireTidy('aborted in the copy')
  t.match(await back(m), { parent: result.point, disks: [{ kind: 'incremental' }, {}] })
})

t.test('names that are taken, disks that are not there', async (t) => {
  const m = new RestingMachine(t)
  await back(m, { checkpoint: 'p0' })
  qemuImg('bitmap', '--add', m.qcow2, 'theirs')
  for (const checkpoint of ['p0', 'theirs']) {
    await t.rejects(back(m, { checkpoint }), { code: 'TARGET_EXISTS' }, checkpoint)
  }
  for (const checkpoint of ['', '../x', 'a/b', '.x', '-x', 'a@b', 'a%b', 'x'.repeat(121), 'a\nb']) {
    await t.rejects(back(m, { checkpoint }), { code: 'USAGE', argument: 'checkpoint' }, checkpoint)
  }
  await t.rejects(back(m, { disks: ['vdx'] }), { code: 'USAGE', argument: 'disks' })
  await t.rejects(back(m, { exclude: ['vda', 'vdb'] }), { code: 'USAGE' })
  t.strictSame(m.bitmaps(), ['p0', 'theirs'])
  const first = await back(m)
  const second = await back(m)
  t.not(first.point, second.point, 'two in a second')
  t.strictSame(m.bitmaps(), ['theirs', second.point])
})

t.test('a disk in use is refused', async (t) => {
  const m = new RestingMachine(t)
  const other = await openMachine(`disk:x=${m.qcow2}`, { name: 'other' })
  const point = await other.freeze({
    run: '0123456789ab',
    point: 'p',
    disks: [{ name: 'x', checkpoint: 'p' }],
  })
  await t.rejects(back(m), { code: 'IN_USE' })
  await point.fail()
  t.strictSame(m.bitmaps(), [])
})
