import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { compareWithQemuImg } from '../../lib/parity/parity.ts'
import { qemuImg } from '../support/qemu.ts'

t.test('what an image may not name is not handed to qemu-img', async (t) => {
  const dir = t.testdir({ images: {} })
  writeFileSync(join(dir, 'secret'), Buffer.alloc(65536))
  mkdirSync(join(dir, 'images', 'sub'))
  const image = join(dir, 'images', 'x.qcow2')
  const ran = join(dir, 'ran')
  const against = join(dir, 'qemu-img')
  const script = `#!/bin/sh\n[ "$1" = --version ] || touch '${ran}'\nexec qemu-img "$@"\n`
  writeFileSync(against, script, { mode: 0o755 })
  for (const name of ['../secret', 'nbd://127.0.0.1:19/x']) {
    qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', image, '64K')
    await t.rejects(compareWithQemuImg([image], { against }).next(), { code: 'NOT_ALLOWED' }, name)
  }
  t.throws(() => writeFileSync(ran, '', { flag: 'r+' }), { code: 'ENOENT' }, 'it never ran')
})
