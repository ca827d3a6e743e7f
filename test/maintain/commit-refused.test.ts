/** Bases that cannot be committed to are refused before a byte is written. */
import { existsSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { commitImage } from '../../lib/maintain/commit/commit.ts'
import { qemuImg, qemuImgCheck, qemuIo } from '../support/qemu.ts'

t.test('a base of version 2 with internal snapshots does not grow', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', at('base'), '1M')
  qemuIo(at('base'), 'write -P 1 0 1M')
  qemuImg('snapshot', '-c', 's', at('base'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'), '2M')
  qemuIo(at('top'), 'write -P 2 64k 64k')
  const before = readFileSync(at('base'))
  await t.rejects(commitImage(at('top')), {
    code: 'UNSUPPORTED',
    message: /is of version 2 and has internal snapshots, so its disk cannot grow/,
  })
  t.ok(readFileSync(at('base')).equals(before), 'not a byte is changed')
  qemuImg('resize', '-q', '--shrink', at('top'), '1M')
  await commitImage(at('top'))
  t.match(qemuImgCheck(at('base')), { status: 0 }, 'of the same size it is committed to')
  qemuImg('snapshot', '-d', 's', at('base'))
  qemuImg('resize', '-q', at('top'), '2M')
  t.equal((await commitImage(at('top'))).virtualSize, 2 ** 21, 'without the snapshot it grows')
})

t.test('what took the name of the top meanwhile is not removed', async (t) => {
  const dir = t.testdir({ elsewhere: {} })
  const at = (...names: string[]) => join(dir, ...names)
  for (const swap of ['a symbolic link', 'another file', 'nothing'] as const) {
    qemuImg('create', '-q', '-f', 'qcow2', at('base'), '1M')
    qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
    qemuIo(at('top'), 'write -P 3 0 64k')
    writeFileSync(at('elsewhere', 'victim'), 'precious')
    const commit = commitImage(at('top'), {
      delete: true,
      disk(disk) {
        // The images are open by now.
        renameSync(at('top'), at('moved'))
        if (swap === 'a symbolic link') symlinkSync('elsewhere/victim', at('top'))
        if (swap === 'another file') writeFileSync(at('top'), 'precious')
        return disk
      },
    })
    const now =
      swap === 'nothing' ? 'nothing has its name any more' : 'its name belongs to another file now'
    const why = `all is committed into ${at('base')}, but it is not deleted: ${now}`
    await t.rejects(commit, { code: 'SOURCE_CHANGED', what: at('top'), why }, swap)
    t.equal(readFileSync(at('elsewhere', 'victim'), 'utf8'), 'precious', swap)
    if (swap === 'another file') t.equal(readFileSync(at('top'), 'utf8'), 'precious')
    t.ok(existsSync(at('moved')), `${swap}: the image that was committed`)
    t.equal(qemuIo(at('base'), 'read -P 3 0 64k').split(' ')[0], 'read', 'it is committed')
    renameSync(at('moved'), at('top'))
  }
})

t.test('of several images the message says which are removed', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('middle'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', at('top'))
  const commit = commitImage(at('top'), {
    base: at('base'),
    delete: true,
    disk(disk) {
      renameSync(at('middle'), at('moved'))
      return disk
    },
  })
  const message = new RegExp(`all is committed into .*; removed before it: ${at('top')}$`)
  await t.rejects(commit, { code: 'SOURCE_CHANGED', what: at('middle'), message })
  t.notOk(existsSync(at('top')))
})

t.test('a top that was named by a symbolic link is removed with the link', async (t) => {
  const dir = t.testdir({ images: {} })
  const at = (...names: string[]) => join(dir, ...names)
  qemuImg('create', '-q', '-f', 'qcow2', at('images', 'base'), '1M')
  const options = ['-b', 'base', '-F', 'qcow2']
  qemuImg('create', '-q', '-f', 'qcow2', ...options, at('images', 'top'))
  symlinkSync('images/top', at('link'))
  qemuImg('rebase', '-u', '-b', at('images', 'base'), '-F', 'qcow2', at('images', 'top'))
  const { deleted } = await commitImage(at('link'), { delete: true })
  t.same(deleted, [at('link')])
  t.notOk(existsSync(at('link')))
  t.notOk(existsSync(at('images', 'top')))
  t.ok(existsSync(at('images', 'base')))
})

t.test('the data file of an image that is removed is left, and noted', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '1M')
  const options = ['-b', 'base', '-F', 'qcow2', '-o', `data_file=${at('top.data')}`]
  qemuImg('create', '-q', '-f', 'qcow2', ...options, at('top'))
  const { deleted, notes } = await commitImage(at('top'), { delete: true })
  t.same(deleted, [at('top')])
  t.ok(existsSync(at('top.data')))
  t.match(notes, [/top\.data: the data file of .*top is left/])
})
