/** Reports of real images; what QEMU's tools say of them is the judge. */
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  type ImageReport,
  isBackupError,
  listBitmaps,
  openSource,
  reportImage,
} from '../../lib/index.ts'
import { damage } from '../support/damage.ts'
import { effort } from '../support/effort.ts'
import { peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuImgMap, qemuIo } from '../support/qemu.ts'
import { seeded } from '../support/random.ts'
import { randomImage } from '../support/random-image.ts'

t.setTimeout(600_000)

const MIB = 2 ** 20
const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0)
const texts = ({ findings }: ImageReport, level: string) =>
  findings.filter((one) => one.level === level).map(({ text }) => text)

/** Bytes of data that QEMU finds in the image at each depth of a chain. */
function storedByDepth(image: string): number[] {
  const stored: number[] = []
  for (const { depth, data, zero, length } of qemuImgMap(image)) {
    if (data && !zero) stored[depth] = (stored[depth] ?? 0) + length
  }
  return stored
}

/** A chain of three images in a directory, of which the lowest has data that is hidden. */
function makeChain(directory: string): string {
  const at = (name: string) => join(directory, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '64M')
  qemuIo(at('base'), 'write -q 0 8M', 'write -q -c 20M 2M')
  qemuImg('bitmap', '--add', at('base'), 'b')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('middle'))
  qemuIo(at('middle'), 'write -q 1M 2M', 'write -q -z 20M 1M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', at('top'), '96M')
  qemuImg('bitmap', '--add', at('top'), 'c')
  qemuIo(at('top'), 'write -q 2M 3M', 'write -q 80M 1M')
  qemuImg('snapshot', '-c', 's1', at('top'))
  return at('top')
}

t.test('a chain is reported as QEMU sees it', async (t) => {
  const top = makeChain(t.testdir())
  const { report, html } = await reportImage(top)
  const stored = storedByDepth(top)
  t.strictSame(
    report.images.map(({ data, compressed }) => data + compressed),
    stored,
  )
  t.match(report, { virtualSize: 96 * MIB, data: sumOf(stored) - MIB, compressed: MIB })
  t.strictSame(
    report.images.map(({ hidden, zero }) => [hidden, zero]),
    [
      [0, 0],
      [MIB, MIB],
      [5 * MIB, 0],
    ],
  )
  for (const one of [report, ...report.images]) {
    for (const kind of ['data', 'compressed', 'zero', 'hidden'] as const) {
      t.equal(sumOf(one.map[kind]), one[kind], kind)
    }
  }
  const [{ dirtyBytes }] = await listBitmaps(top)
  const found = report.bitmaps.map(({ name, image, dirtyBytes }) => [name, image, dirtyBytes])
  const base = join(top, '../base')
  t.strictSame(found, [
    ['c', top, dirtyBytes],
    ['b', base, 0],
  ])
  t.equal(dirtyBytes, 4 * MIB)
  t.match(report.snapshots, [{ name: 's1', id: '1', diskSize: 96 * MIB, vmStateSize: 0 }])
  t.match(texts(report, 'good'), [/structure of all 3 qcow2 images is sound/, /^1 bitmap can be/])
  t.match(texts(report, 'warning'), [/Bitmap 'b' cannot be used/])
  t.ok(texts(report, 'note').some((text) => /middle: its disk ends at 64 MiB/.test(text)))
  t.match(html, /5 MiB hidden/)
})

t.test('maps of images of every kind are those of QEMU', async (t) => {
  for (let seed = 0; seed < effort(2, 100); seed++) {
    const random = seeded(seed)
    const image = await randomImage(t.testdir(), (below) => Math.floor(random() * below))
    const what = `seed ${seed}: ${image.description}`
    const { path, format } = image
    const { report } = await reportImage(path, { format, backingFormat: 'raw' })
    const ours = report.images.map(({ data, compressed }) => data + compressed)
    const theirs: number[] = ours.map(() => 0)
    for (const { depth, data, zero, length } of qemuImgMap(path, format)) {
      if (data && !zero) theirs[depth] += length
    }
    // QEMU looks for holes in files less often than we do.
    const source = await openSource(path, { format, backingFormat: 'raw' })
    let stored = 0
    for await (const batch of source.mappings()) {
      for (const mapping of batch) if ('store' in mapping) stored += mapping.length
    }
    await source.close()
    const expected = stored === sumOf(theirs) ? theirs : ours
    const found = [ours, sumOf(ours), texts(report, 'fault')]
    t.strictSame(found, [expected, stored, []], what)
  }
})

t.test('damage is part of the report', async (t) => {
  const image = join(t.testdir(), 'disk')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1G')
  qemuIo(image, 'write -q 0 1M', 'write -q 600M 1M')
  const l1 = Number(peek64(image, 40))
  const l2 = Number(peek64(image, l1 + 8) & 0x00ff_ffff_ffff_fe00n)
  // A cluster within a cluster, in the second table.
  poke(image, l2 + 8 * ((600 - 512) * 16), (1n << 63n) | 0x10200n)
  const { report, html } = await reportImage(image)
  t.equal(report.data, MIB, 'the other part of the disk is mapped')
  t.ok(report.unknown > 0 && report.unknown <= (1024 * MIB) / 64, `${report.unknown} are not known`)
  t.ok(texts(report, 'fault').length >= 2, 'the check and the map each say so')
  t.match(texts(report, 'fault').join('\n'), /in its structure: data may be wrong/)
  t.match(html, /damaged/)
  t.notMatch(html, /is sound/)
})

t.test('an image with any damage ends in a report, or in one clear error', async (t) => {
  const directory = t.testdir()
  const sound = makeChain(directory)
  const image = join(directory, 'damaged')
  const ended: Record<string, number> = {}
  for (let seed = 0; seed < effort(5, 300); seed++) {
    const random = seeded(seed)
    copyFileSync(sound, image)
    const done = damage(image, (below) => Math.floor(random() * below))
    const outcome = await reportImage(image, { format: 'qcow2' }).then(
      ({ html }) => (/NaN|Infinity|undefined/.test(html) ? 'not a number' : 'reported'),
      (error) => (isBackupError(error) ? error.code : `${error}`),
    )
    ended[outcome] = (ended[outcome] ?? 0) + 1
    const isClear = /^(reported|BAD_IMAGE|UNSUPPORTED|NOT_ALLOWED|IO)$/.test(outcome)
    if (!isClear) t.fail(`seed ${seed}: ${done.join('; ')}: ${outcome}`)
  }
  t.ok(ended.reported > 0, JSON.stringify(ended))
})

t.test('an image that leaks, one that is in use, and one of nothing', async (t) => {
  const directory = t.testdir()
  const image = join(directory, 'disk')
  qemuImg('create', '-q', '-f', 'qcow2', image, '64M')
  qemuIo(image, 'write -q 0 1M')
  const table = Number(peek64(image, Number(peek64(image, 40))) & 0x00ff_ffff_ffff_fe00n)
  poke(image, table, 0n)
  const { report } = await reportImage(image)
  t.match(texts(report, 'warning'), [/64 KiB of its file are used for nothing/])
  t.equal(report.images[0].check?.leaks, 1)

  const empty = join(directory, 'empty')
  writeFileSync(empty, '')
  const none = await reportImage(empty, { format: 'raw' })
  t.match(none.report, { virtualSize: 0, data: 0, images: [{ format: 'raw' }], findings: [] })
  t.notMatch(none.html, /NaN|Infinity|undefined/)
})

t.test('the page is a file that is complete or not there', async (t) => {
  const directory = t.testdir()
  const image = makeChain(directory)
  const output = join(directory, 'page.html')
  const { html } = await reportImage(image, { output })
  t.equal(readFileSync(output, 'utf8'), html)
  t.equal(statSync(output).mode & 0o777, 0o600)
  await t.rejects(reportImage(image, { output }), { code: 'TARGET_EXISTS', hint: 'force' })
  writeFileSync(output, '{"version": 1}')
  await t.rejects(reportImage(image, { output, force: true }), {
    code: 'BAD_TARGET',
    message: /page\.html: exists and is not a page of HTML; remove it if it is not needed$/,
  })
  t.equal(readFileSync(output, 'utf8'), '{"version": 1}', 'a record, say, stays')
  const before = '<!DOCTYPE html>before'
  writeFileSync(output, before)
  const signal = AbortSignal.abort()
  await t.rejects(reportImage(image, { output, force: true, signal }), { code: 'ABORTED' })
  const controller = new AbortController()
  const onProgress = () => controller.abort()
  const stopped = { output, force: true, signal: controller.signal, onProgress }
  await t.rejects(reportImage(image, stopped), { code: 'ABORTED' })
  t.equal(readFileSync(output, 'utf8'), before)
  await reportImage(image, { output, force: true })
  t.match(readFileSync(output, 'utf8'), /^<!doctype html>/)
  for (const name of ['top', 'base']) {
    const own = { output: join(directory, name), force: true }
    await t.rejects(reportImage(image, own), { code: 'BAD_TARGET', message: /is the source/ })
  }
  await t.rejects(reportImage(image, { force: true }), { code: 'USAGE', argument: 'force' })
  await t.rejects(reportImage(join(directory, 'none'), { output: `${output}.2` }), { code: 'IO' })
  t.notOk(existsSync(`${output}.2`))
  t.strictSame(readdirSync(directory).sort(), ['base', 'middle', 'page.html', 'top'])
})
