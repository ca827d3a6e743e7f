import t from 'tap'
import { STANDARD } from '../../lib/cli/io.ts'
import { formatProgress, openProgress } from '../../lib/cli/progress-display.ts'

const GIB = 2 ** 30

t.test('the line of the bar has percent, position, data, rate and time', async (t) => {
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

t.test('what does not fit is left out whole, the time left is never cut', async (t) => {
  const progress = {
    phase: 'verify',
    position: 999.5 * GIB,
    size: 1023.9 * GIB,
    dataBytes: 888.8 * GIB,
    elapsedSeconds: 400_000,
  } as const
  const whole = formatProgress(progress)
  for (let columns = 1; columns <= whole.length + 1; columns++) {
    const line = formatProgress(progress, columns)
    t.ok(line.length <= columns || line === '97%', `${columns}: ${line}`)
    if (line.includes('left')) t.match(line, / 2:42:45 left$/, `${columns}: ${line}`)
  }
  t.match(formatProgress(progress, 79), /iB\/s, 2:42:45 left$/, 'a terminal of 80 columns')
  t.match(formatProgress({ ...progress, phase: 'copy' }, 79), / left$/)
  const wait = { phase: 'wait', position: 0, size: 0, dataBytes: 0, elapsedSeconds: 61 } as const
  t.equal(formatProgress(wait), 'waiting for others, 1:01')
})

/** An io that keeps what is written to stderr. */
function stderr(canDraw: boolean, columns = 80) {
  const written: string[] = []
  return { written, io: { canDraw, columns, stderr: (text: string) => void written.push(text) } }
}

const STEP = { phase: 'copy', position: 1, size: 3, dataBytes: 1, elapsedSeconds: 0.5 } as const

t.test('--progress json prints lines, whatever stderr is', async (t) => {
  const { written, io } = stderr(true)
  const display = openProgress('json', io)
  display.update(STEP)
  display.update({ phase: 'copy', position: 3, size: 3, dataBytes: 2, elapsedSeconds: 1 })
  display.close()
  t.strictSame(written, [
    '{"phase":"copy","position":1,"size":3,"dataBytes":1,"elapsedSeconds":0.5}\n',
    '{"phase":"copy","position":3,"size":3,"dataBytes":2,"elapsedSeconds":1}\n',
  ])
})

t.test('nothing where no bar can be drawn, or none is wanted', async (t) => {
  for (const [mode, terminal] of [
    [undefined, false],
    [false, true],
  ] as const) {
    const { written, io } = stderr(terminal)
    const display = openProgress(mode, io)
    display.update(STEP)
    display.close()
    t.strictSame(written, [])
    display.say('a finding\n')
    t.strictSame(written, ['a finding\n'])
  }
})

t.test('findings stand above the bar, and the bar goes when all is done', async (t) => {
  const { written, io } = stderr(true)
  const display = openProgress(undefined, io)
  display.say('before\n')
  display.update(STEP)
  display.say('a finding\n')
  display.close()
  const line = formatProgress(STEP, 79)
  t.strictSame(written, [
    'before\n',
    `\r\x1b[2K${line}`,
    `\r\x1b[2Ka finding\n${line}`,
    '\r\x1b[2K',
  ])
})

t.test('a dumb terminal shows no bar', async (t) => {
  t.intercept(process.stderr, 'isTTY', { value: true })
  t.intercept(process, 'env', { value: { ...process.env, TERM: 'dumb' } })
  t.equal(STANDARD.canDraw, false)
  t.intercept(process, 'env', { value: { ...process.env, TERM: 'xterm' } })
  t.equal(STANDARD.canDraw, true)
})
