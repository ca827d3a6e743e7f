/** Running libvirt domains: a real libvirtd, and disks that are written to while they are copied. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, incrementalBackup } from '../../../lib/index.ts'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'
import { THOROUGH_ONLY } from '../../support/effort.ts'
import { startLibvirtd, type TestDisk } from '../../support/libvirtd.ts'
import { qemuImg } from '../../support/qemu.ts'
import { back, freeze, lost, MIB, nothingLeft, sameContent, setUp, stateIs } from './domains.ts'

t.setTimeout(600_000)

t.test('libvirt domains', async (t) => {
  const libvirtd = await startLibvirtd(t)

  t.test('disks are described', async (t) => {
    const { machine, disks } = await setUp(t, libvirtd, 'described')
    t.equal(machine.name, 'described')
    t.match(await machine.disks(), [
      {
        name: 'vda',
        path: disks[0].path,
        format: 'qcow2',
        virtualSize: 64 * MIB,
        bitmaps: [],
        full: { possible: true },
        incremental: { possible: true },
      },
      {
        name: 'vdb',
        path: disks[1].path,
        format: 'raw',
        virtualSize: 32 * MIB,
        full: { possible: true },
        incremental: { possible: false, reason: /raw image holds no bitmaps/ },
      },
    ])
  })

  t.test('full, then incremental: equal to their points in time', async (t) => {
    const { machine, domain, disks, dir } = await setUp(t, libvirtd, 'rounds')
    const at = (name: string) => join(dir, name)
    const before = await Promise.all(
      disks.map((disk) => domain.snapshot(disk, at(`${disk.dev}.1.raw`))),
    )
    const first = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }, { name: 'vdb' }])
    // What the guest writes now is not of the point.
    await domain.io('vda', 'write -P 9 0 1M', 'write -P 9 20M 1M')
    await domain.io('vdb', 'write -P 9 0 2M')
    for (const [i, disk] of first.disks.entries()) {
      await back(disk, at(`${disk.name}.1.qcow2`))
      sameContent(t, at(`${disk.name}.1.qcow2`), before[i])
    }
    t.strictSame(first.disks[0].checkpoint, { name: 'p1', granularity: 65536 })
    t.equal(first.disks[1].checkpoint, undefined)
    t.match(first.definition, /<name>rounds<\/name>/)
    t.match(first.versions, { libvirt: /^\d+\.\d+/, qemu: /^\d+\.\d+/ })
    t.ok((await first.disks[0].scratchBytes?.())! >= MIB)
    t.strictSame(await first.succeed({ remove: [] }), [])
    await nothingLeft(t, domain, machine, ['p1'])

    const [health] = await machine.disks()
    t.match(health.bitmaps, [{ name: 'p1', valid: true }])
    const later = await Promise.all(
      disks.map((disk) => domain.snapshot(disk, at(`${disk.dev}.2.raw`))),
    )
    const second = await freeze(machine, 'p2', [
      { name: 'vda', since: 'p1', checkpoint: 'p2' },
      { name: 'vdb' },
    ])
    await domain.io('vda', 'write -P 8 0 8M')
    const { dataBytes } = await back(second.disks[0], at('vda.2.qcow2'), at('vda.1.qcow2'))
    t.equal(dataBytes, 2 * MIB, 'what was written between the points, and no more')
    sameContent(t, at('vda.2.qcow2'), later[0])
    await back(second.disks[1], at('vdb.2.qcow2'))
    sameContent(t, at('vdb.2.qcow2'), later[1])
    t.strictSame(await second.succeed({ remove: ['p1'] }), [])
    await nothingLeft(t, domain, machine, ['p2'])
  })

  t.test(
    'small clusters have small granules; version 2 holds no bitmaps',
    THOROUGH_ONLY,
    async (t) => {
      const at = (file: string) => join(libvirtd.directory, `kinds-${file}`)
      const disks: TestDisk[] = [
        { dev: 'vda', path: at('a'), format: 'qcow2' },
        { dev: 'vdb', path: at('b'), format: 'qcow2' },
      ]
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', at('a'), '16M')
      qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', at('b'), '16M')
      const domain = await libvirtd.define('kinds', disks)
      await domain.virsh('start')
      const machine = await openLibvirtMachine(domain.name, { connect: libvirtd.connect })
      t.match(await machine.disks(), [
        { incremental: { possible: true } },
        { incremental: { possible: false, reason: /version 2, which holds no bitmaps/ } },
      ])
      const point = await freeze(machine, 'p1', [
        { name: 'vda', checkpoint: 'p1' },
        { name: 'vdb' },
      ])
      t.strictSame(point.disks[0].checkpoint, { name: 'p1', granularity: 4096 })
      t.strictSame(await point.succeed({ remove: [] }), [])
      await domain.virsh('destroy')
      t.match(qemuImg('info', at('a')), /name: p1\s+granularity: 4096/)
    },
  )

  t.test(
    'a name that is a number, and a path with what XML would take for its own',
    THOROUGH_ONLY,
    async (t) => {
      const { machine, domain, dir } = await setUp(t, libvirtd, '1')
      t.equal(machine.name, '1')
      const scratch = join(libvirtd.directory, "it's <&>")
      mkdirSync(scratch)
      const point = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }], { scratch })
      t.equal(readdirSync(scratch).length, 1)
      await back(point.disks[0], join(dir, '1.qcow2'))
      t.strictSame(await point.fail(), [])
      t.strictSame(readdirSync(scratch), [])
      await nothingLeft(t, domain, machine, [])
      const refused = freeze(machine, 'a/b', [{ name: 'vda', checkpoint: 'a/b' }])
      await t.rejects(refused, { code: 'USAGE', message: /no name of a checkpoint/ })
      await t.rejects(freeze(machine, 'p1', [{ name: 'vdq' }]), {
        message: /no disk vdq; it has vda, vdb/,
      })
      const other = { connect: libvirtd.connect }
      await t.rejects(openLibvirtMachine('none', other), {
        message: /no such domain at .*; there are '/,
      })
    },
  )

  t.test('a backup that failed leaves nothing, and the next has its changes', async (t) => {
    const { machine, domain, disks, dir } = await setUp(t, libvirtd, 'failed')
    const at = (name: string) => join(dir, name)
    const first = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    await back(first.disks[0], at('1.qcow2'))
    await first.succeed({ remove: [] })
    await domain.io('vda', 'write -P 5 30M 1M')
    const second = await freeze(machine, 'p2', [{ name: 'vda', since: 'p1', checkpoint: 'p2' }])
    t.strictSame(await second.fail(), [])
    t.strictSame(await second.fail(), [], 'twice')
    await nothingLeft(t, domain, machine, ['p1'])
    const reference = await domain.snapshot(disks[0], at('raw'))
    const third = await freeze(machine, 'p3', [{ name: 'vda', since: 'p1', checkpoint: 'p3' }])
    await back(third.disks[0], at('3.qcow2'), at('1.qcow2'))
    await third.succeed({ remove: ['p1'] })
    sameContent(t, at('3.qcow2'), reference)
  })

  t.test('a job of somebody else is told at once, and left alone', async (t) => {
    const { machine, domain } = await setUp(t, libvirtd, 'busy')
    const first = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    await t.rejects(freeze(machine, 'p2', [{ name: 'vda', checkpoint: 'p2' }]), {
      code: 'IN_USE',
      why: /a backup of run [0-9a-f]{12} of process \d+ on host/,
    })
    t.strictSame(await machine.clean(), [], 'a run that goes on is not cleaned')
    t.strictSame(await first.fail(), [])
    await nothingLeft(t, domain, machine, [])
  })

  t.test('a job that somebody ends is lost', THOROUGH_ONLY, async (t) => {
    const { machine, domain } = await setUp(t, libvirtd, 'ended')
    const point = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    await domain.virsh('domjobabort')
    const { reason } = await lost(point)
    t.match(reason, { code: 'IO', why: /ended by somebody else/ })
    t.strictSame(await point.fail(), [])
    await nothingLeft(t, domain, machine, [])
  })

  t.test('a domain that is destroyed in mid copy', async (t) => {
    const { machine, domain, disks } = await setUp(t, libvirtd, 'gone')
    const point = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    await domain.virsh('destroy')
    t.ok(await point.whyLost?.(), 'who asks is told without an event')
    t.ok(point.lost.aborted)
    const { reason } = await lost(point)
    t.match(reason, { code: 'IO', why: /the domain is shut off \(destroyed\)/ })
    t.strictSame(await point.fail(), [])
    t.equal(await domain.virsh('checkpoint-list', '--name'), '')
    t.notMatch(qemuImg('info', disks[0].path), /p1/, 'its bitmap is gone')
    t.notOk(existsSync(point.disks[0].source.replace(/.*socket=/, '')))
  })

  t.test('a broken checkpoint is known, refused, and can be removed', async (t) => {
    const { machine, domain, dir } = await setUp(t, libvirtd, 'broken')
    const first = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    await first.succeed({ remove: [] })
    process.kill(domain.pid(), 'SIGKILL')
    await stateIs(domain, /shut off/)
    await domain.virsh('start')
    const [disk] = await machine.disks()
    t.match(disk.bitmaps, [{ name: 'p1', valid: false, reasons: [/p1 is broken/] }])
    await t.rejects(freeze(machine, 'p2', [{ name: 'vda', since: 'p1', checkpoint: 'p2' }]), {
      code: 'BAD_BITMAP',
      why: /checkpoint p1 is broken/,
    })
    await nothingLeft(t, domain, machine, ['p1'])
    const second = await freeze(machine, 'p2', [{ name: 'vda', checkpoint: 'p2' }])
    await back(second.disks[0], join(dir, '2.qcow2'))
    t.match(await second.succeed({ remove: ['p1'] }), [/checkpoint p1 was broken/])
    await nothingLeft(t, domain, machine, ['p2'])
  })

  t.test('checkpoints of others are left alone', THOROUGH_ONLY, async (t) => {
    const { machine, domain } = await setUp(t, libvirtd, 'foreign')
    await domain.virsh(
      'checkpoint-create-as',
      '--name',
      'theirs',
      '--diskspec',
      'vda',
      '--diskspec',
      'vdb,checkpoint=no',
    )
    const point = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    t.match(await point.succeed({ remove: ['theirs'] }), [/theirs stays: it was made by others/])
    await nothingLeft(t, domain, machine, ['theirs', 'p1'])
    await t.rejects(freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }]), {
      code: 'TARGET_EXISTS',
    })
    await nothingLeft(t, domain, machine, ['theirs', 'p1'])
  })
  t.test('what is stored is copied no more, where discards are asked for', async (t) => {
    const { machine, domain, disks, dir } = await setUp(t, libvirtd, 'discards')
    const at = (name: string) => join(dir, name)
    let since: string | undefined
    for (const checkpoint of ['p1', 'p2']) {
      const reference = await domain.snapshot(disks[0], at(`${checkpoint}.raw`))
      const wanted = [{ name: 'vda', since, checkpoint }, { name: 'vdb' }]
      const point = await freeze(machine, checkpoint, wanted, { discard: true })
      t.match(point.notes, [/tainted/])
      await domain.io('vda', 'write -P 7 2M 1M')
      const [disk] = point.disks
      const options = { ...disk.open, discardAfterCopy: disk.discardGranule }
      const target = at(`${checkpoint}.qcow2`)
      const { dataBytes, notes } =
        since === undefined
          ? await fullBackup(disk.source, target, options)
          : await incrementalBackup(disk.source, target, {
              ...options,
              backing: at(`${since}.qcow2`),
            })
      t.equal(notes, undefined)
      if (since !== undefined) t.equal(dataBytes, 2 * MIB)
      sameContent(t, target, reference)
      const held = await disk.scratchBytes!()
      await domain.io('vda', 'write -P 8 2M 1M', 'write -P 8 40M 1M')
      t.equal(await disk.scratchBytes!(), held, 'what was overwritten after that needed no copy')
      await back(point.disks[1], at(`${checkpoint}.vdb.qcow2`))
      t.strictSame(await point.succeed({ remove: since === undefined ? [] : [since] }), [])
      await nothingLeft(t, domain, machine, [checkpoint])
      const nodes = await domain.virsh(
        'qemu-monitor-command',
        '{"execute":"query-named-block-nodes"}',
      )
      t.notMatch(nodes, /qcow2-backup-/)
      since = checkpoint
    }
  })
  t.end()
})
