/** What others put where runs leave their directories is not taken for a run's. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { beginRun } from '../../../lib/machine/libvirt/owner.ts'
import { DEFAULT_PLACE, findRuns, removePlaces } from '../../../lib/machine/libvirt/places.ts'

const UUID = '6c3f5b0a-0000-4000-8000-0123456789ab'

t.test('a record that is a pipe, a link or huge is none', async (t) => {
  for (const [index, kind] of ['pipe', 'link', 'huge', 'record'].entries()) {
    const { mark, end } = await beginRun(`0000000000e${index}`)
    end()
    const place = `${DEFAULT_PLACE}/${mark}`
    t.teardown(() => rmSync(place, { recursive: true, force: true }))
    mkdirSync(place)
    const record = { uuid: UUID, quiesce: true, discards: 2, directories: [place, '/etc'] }
    const text = JSON.stringify(record)
    const path = `${place}/run.json`
    if (kind === 'pipe') execFileSync('mkfifo', [path])
    if (kind === 'huge') writeFileSync(path, text.padEnd(70_000))
    if (kind === 'record') writeFileSync(path, text)
    if (kind === 'link') {
      writeFileSync(`${place}/other`, text)
      symlinkSync(`${place}/other`, path)
    }
    const found = (await findRuns(UUID)).get(mark)
    const believed = { uuid: UUID, quiesce: true, discards: 2, directories: [place] }
    t.strictSame(found, kind === 'record' ? believed : undefined, kind)
  }
})

const notRoot = process.getuid?.() !== 0 && 'only root gives files to others'

t.test('of a record of somebody else little is believed', { skip: notRoot }, async (t) => {
  const { mark, end } = await beginRun('0000000000ef')
  end()
  const place = `${DEFAULT_PLACE}/${mark}`
  t.teardown(() => rmSync(place, { recursive: true, force: true }))
  mkdirSync(place)
  const record = { uuid: UUID, quiesce: true, discards: 9, directories: [place, `/home/x/${mark}`] }
  writeFileSync(`${place}/run.json`, JSON.stringify(record))
  execFileSync('chown', ['-R', '12345', place])
  const believed = { uuid: UUID, quiesce: true, discards: 0, directories: [place] }
  t.strictSame((await findRuns(UUID)).get(mark), believed)
})

t.test('a link in place of a directory leads nowhere', async (t) => {
  const { mark, end } = await beginRun('0000000000ee')
  end()
  const theirs = t.testdir({ 'vda.scratch': 'theirs', nbd: 'theirs', 'run.json': 'theirs' })
  const place = `${t.testdirName}-${mark}`.replace(/[^/]*$/, mark)
  symlinkSync(theirs, place)
  t.teardown(() => rmSync(place))
  t.strictSame(await removePlaces([place]), [])
  for (const name of ['vda.scratch', 'nbd', 'run.json']) t.ok(existsSync(`${theirs}/${name}`), name)
})
