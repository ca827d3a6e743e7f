import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { locate } from '../../../lib/copy/target/location.ts'
import { openTarget, publishAll, type Target } from '../../../lib/copy/target/open-target.ts'

/** A target in whose directory a number of syncs fail, from the first on. */
async function openWithoutSync(path: string, failures: number): Promise<Target> {
  const location = await locate(path)
  const { directory } = location
  const sync = directory.sync.bind(directory)
  let left = failures
  directory.sync = async () => {
    if (left-- > 0) throw Object.assign(new Error('EIO: i/o error, fsync'), { code: 'EIO' })
    await sync()
  }
  return await openTarget(location, { force: true, sources: [] })
}

t.test('a directory that cannot be synced: the error says what has the name now', async (t) => {
  const crash = '; a crash of the system may bring back what was new'
  for (const failures of [1, 2]) {
    const directory = t.testdir({ old: 'what stood there' })
    const why = `its name in ${directory} cannot be made durable: input/output error`
    const last = failures === 1 ? '' : crash

    const fresh = join(directory, 'fresh')
    const made = await openWithoutSync(fresh, failures)
    await t.rejects(publishAll([[made]]), {
      code: 'IO',
      errno: 'EIO',
      message: `${fresh}: ${why}; the name ${fresh} was taken back: nothing has it now${last}`,
    })
    await made.discard()
    t.notOk(existsSync(fresh))

    const old = join(directory, 'old')
    const replacing = await openWithoutSync(old, failures)
    await t.rejects(publishAll([[replacing]]), {
      code: 'IO',
      message: `${old}: ${why}; the name ${old} was taken back: it is the file before again${last}`,
    })
    await replacing.discard()
    t.equal(readFileSync(old, 'utf8'), 'what stood there')
    t.strictSame(readdirSync(directory), ['old'])
  }
})

t.test('several targets of which one cannot have its name: none has', async (t) => {
  const directory = t.testdir({ b: 'what stood there' })
  const names = ['a', 'b', 'c']
  for (const taken of ['a', 'c']) {
    const paths = names.map((name) => join(directory, name))
    const targets = await Promise.all(
      paths.map((path) => openTarget(path, { force: true, sources: [] })),
    )
    writeFileSync(join(directory, taken), 'of another')
    await t.rejects(publishAll(targets.map((target) => [target])), {
      code: 'TARGET_EXISTS',
      message: `${join(directory, taken)}: was made by another process meanwhile`,
    })
    for (const target of targets) await target.discard()
    t.strictSame(readdirSync(directory).sort(), [taken, 'b'].sort(), 'nothing else has a name')
    t.equal(readFileSync(join(directory, 'b'), 'utf8'), 'what stood there')
    t.equal(readFileSync(join(directory, taken), 'utf8'), 'of another')
    t.testdir({ b: 'what stood there' })
  }
})
