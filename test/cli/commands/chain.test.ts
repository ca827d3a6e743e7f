import { join } from 'node:path'
import t from 'tap'
import { runCli } from '../../support/cli.ts'
import { qemuImg } from '../../support/qemu.ts'

t.test('chain prints its report for people, and as JSON', async (t) => {
  const cwd = t.testdir()
  const at = (name: string) => join(cwd, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('base'), '64M')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', at('top'))
  const none = await runCli(['chain', 'top'], { cwd })
  t.strictSame(
    [none.status, none.stdout],
    [0, 'top: qcow2, 64 MiB\nbase: qcow2, 64 MiB\nno bitmaps\n'],
  )

  for (const image of ['top', 'base']) qemuImg('bitmap', '--add', at(image), 'b')
  const valid = await runCli(['chain', 'top'], { cwd })
  t.equal(valid.status, 0)
  t.match(valid.stdout, "bitmap 'b': valid (top: recording, 64 KiB, base: recording, 64 KiB)\n")

  qemuImg('bitmap', '--disable', at('top'), 'b')
  const invalid = await runCli(['chain', 'top'], { cwd })
  t.equal(invalid.status, 1)
  t.match(
    invalid.stdout,
    "bitmap 'b': NOT VALID (top: disabled, 64 KiB, base: recording, 64 KiB)\n",
  )
  t.match(invalid.stdout, /\n {2}top: bitmap 'b' is disabled: .*\n$/)
  t.equal(invalid.stderr, 'qcow2-backup: top: 1 of 1 bitmaps are not valid\n')

  const json = await runCli(['chain', '--json', 'top'], { cwd })
  t.equal(json.status, 1)
  const { images, bitmaps } = JSON.parse(json.stdout)
  t.strictSame(
    images.map(({ image }: { image: string }) => image),
    ['top', 'base'],
  )
  const [{ name, valid: yes, reasons, images: places }] = bitmaps
  t.strictSame([name, yes, reasons.length], ['b', false, 1])
  t.strictSame(places, [
    { image: 'top', present: true, recording: false, inconsistent: false, granularity: 65536 },
    { image: 'base', present: true, recording: true, inconsistent: false, granularity: 65536 },
  ])
})
