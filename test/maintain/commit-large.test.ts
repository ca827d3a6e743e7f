/** Commits that are large in zeroes or in size: they are tables only. */
import { statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { commitImage, createSnapshot } from '../../lib/index.ts'
import { qemuImg, qemuImgCheck, qemuIo, run } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const G = 2 ** 30

/** Lets all of a disk read as zero in an image that is empty. */
function wipe(image: string, gigabytes: number, but: (g: number) => boolean = () => false) {
  const all = Array.from({ length: gigabytes }, (_, g) => g).filter((g) => !but(g))
  const commands = all.flatMap((g) => ['-c', `write -z ${g}G 1G`])
  const { status, stderr } = run('qemu-io', ['-n', '-f', 'qcow2', ...commands, image])
  if (status !== 0) throw new Error(stderr)
}

for (const below of [false, true]) {
  t.test(`a wiped disk of 128 GiB, ${below ? 'over another image' : 'by itself'}`, async (t) => {
    const dir = t.testdir()
    const at = (name: string) => join(dir, name)
    qemuImg('create', '-q', '-f', 'qcow2', at('below'), '128G')
    qemuIo(at('below'), 'write -P 8 0 64k', 'write -P 8 100G 1M')
    const over = below ? ['-b', 'below', '-F', 'qcow2'] : []
    qemuImg('create', '-q', '-f', 'qcow2', ...over, at('base'), '128G')
    qemuIo(at('base'), 'write -P 1 5G 20M', 'write -P 1 90G 1M')
    await createSnapshot(at('base'), at('top'))
    wipe(at('top'), 128)
    const before = statSync(at('base')).size
    const result = await commitImage(at('top'))
    t.equal(result.zeroBytes, 128 * G)
    t.equal(qemuImgCheck(at('base')).status, 0)
    // Over another image each 512 MiB take an L2 table of zeroes, which no two L1 entries share.
    const tables = below ? (128 * G) / (512 * 2 ** 20) : 0
    const most = 2 ** 20 + tables * 65536
    t.ok(statSync(at('base')).size - before <= most)
    t.ok(statSync(at('base')).blocks * 512 <= most, 'the room of the data is given back')
    qemuImg('create', '-q', '-f', 'qcow2', at('empty'), '128G')
    t.equal(qemuImg('compare', at('base'), at('empty')), 'Images are identical.\n')

    // Once more: nothing is left to do.
    const size = statSync(at('base')).size
    await commitImage(at('top'))
    t.equal(statSync(at('base')).size, size)
    t.equal(qemuImgCheck(at('base')).status, 0)

    // All L1 entries name tables of zeroes by now; some of them get data, then all but one go.
    await createSnapshot(at('base'), at('next'))
    qemuIo(at('next'), 'write -P 2 1G 64k', 'write -P 3 111G 3k', 'write -z 90G 100k')
    await commitImage(at('next'))
    t.equal(qemuImgCheck(at('base')).status, 0)
    t.equal(qemuImg('compare', at('base'), at('next')), 'Images are identical.\n')
    if (!below) return
    await createSnapshot(at('base'), at('last'))
    const commands = Array.from({ length: 255 }, (_, i) => ['-c', `write -P 4 ${i * 512}M 64k`])
    run('qemu-io', ['-n', '-f', 'qcow2', ...commands.flat(), at('last')])
    await commitImage(at('last'))
    t.equal(qemuImgCheck(at('base')).status, 0)
    t.equal(qemuImg('compare', at('base'), at('last')), 'Images are identical.\n')
  })
}

t.test('a base that becomes so large that its tables must move', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  for (const options of ['cluster_size=512', 'cluster_size=64k', 'cluster_size=4k,compat=0.10']) {
    qemuImg('create', '-q', '-f', 'qcow2', '-o', options, at('base'), '1M')
    qemuIo(at('base'), 'write -P 1 0 1M')
    qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'), '80G')
    const place = options.includes('512') ? '60M' : '79G'
    if (options.includes('512')) qemuImg('resize', '-q', '--shrink', at('top'), '64M')
    qemuIo(at('top'), `write -P 2 ${place} 1M`, 'write -z 100k 3k')
    await commitImage(at('top'))
    t.equal(qemuImgCheck(at('base')).status, 0, options)
    t.equal(qemuImg('compare', at('base'), at('top')), 'Images are identical.\n', options)
  }
})

t.test('a base that cannot become as large as its overlay', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', at('base'), '1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'), '1T')
  const error = { code: 'UNSUPPORTED', message: /base: cannot hold a disk of .* clusters of 512/ }
  await t.rejects(commitImage(at('top')), error)
  t.equal(qemuImgCheck(at('base')).status, 0)
})
