import t from 'tap'
import { formatProgress, openProgress } from '../../lib/cli/progress.ts'

const GIB = 2 ** 30

t.test('the line of the bar', async (t) => {
  const line = (position: number, size: number, dataBytes: number, elapsedSeconds: number) =>
    formatProgress({ phase: 'copy', position, size, dataBytes, elapsedSeconds })
  t.equal(
    line(0, 8 * GIB, 0, 0),
    '[                        ]   0% 0 B of 8 GiB, data 0 B, 0 B/s, -:-- left',
  )
  t.equal(
    line(2 * GIB, 8 * GIB, GIB, 4),
    '[======                  ]  25% 2 GiB of 8 GiB, data 1 GiB, 256 MiB/s, 0:12 left',
  )
  t.match(line(GIB, 8 * GIB, GIB, 600), '1:10:00 left')
  t.match(line(8 * GIB - 1, 8 * GIB, GIB, 4), ' 99% ', 'never 100 before the end')
  t.match(line(8 * GIB, 8 * GIB, GIB, 4), '[========================] 100% ')
  t.match(line(0, 0, 0, 0.01), '100%', 'an empty disk')
})

t.test('JSON lines, whatever stderr is', async (t) => {
  const written = t.capture(process.stderr, 'write', () => true)
  const display = await openProgress('json')
  display.update({ phase: 'copy', position: 1, size: 3, dataBytes: 1, elapsedSeconds: 0.5 })
  display.update({ phase: 'copy', position: 3, size: 3, dataBytes: 2, elapsedSeconds: 1 })
  display.close()
  t.strictSame(
    written().map(({ args }) => args[0]),
    [
      '{"phase":"copy","position":1,"size":3,"dataBytes":1,"elapsedSeconds":0.5}\n',
      '{"phase":"copy","position":3,"size":3,"dataBytes":2,"elapsedSeconds":1}\n',
    ],
  )
})

t.test('nothing where there is no terminal, or none is wanted', async (t) => {
  const written = t.capture(process.stderr, 'write', () => true)
  for (const [mode, terminal] of [
    [undefined, false],
    [false, true],
  ] as const) {
    t.intercept(process.stderr, 'isTTY', { value: terminal })
    const display = await openProgress(mode)
    display.update({ phase: 'copy', position: 1, size: 3, dataBytes: 1, elapsedSeconds: 0.5 })
    display.close()
  }
  t.strictSame(written(), [])
})
