import type { ControlOptions } from '../options.ts'
import type { Phase, Progress } from '../progress.ts'
import { formatSize } from '../units.ts'
import type { Io } from './io.ts'
import type { ProgressFlags } from './output-flags.ts'

/** Shows on stderr how far something is. */
export interface ProgressDisplay {
  update(progress: Progress): void
  /** Prints lines on stderr above the bar, which is drawn again below them. */
  say(text: string): void
  /** Removes the bar while something else prints, and draws it again. */
  around(print: () => Promise<void>): Promise<void>
  /** Removes the bar from the terminal. */
  close(): void
}

/** Redraws a second; each costs a write to the terminal. */
const REDRAWS = 5
const BAR_CHARACTERS = 24
/** Moves to the start of the line and clears it. */
const CLEAR = '\r\x1b[2K'

/**
 * @param mode `json`: a line of JSON per update; `false`: nothing; undefined: a bar if stderr is a
 * terminal that can show one, else nothing
 */
export function openProgress(
  mode: 'json' | false | undefined,
  io: Pick<Io, 'stderr' | 'canDraw' | 'columns'>,
): ProgressDisplay {
  if (mode === 'json') return jsonLines(io)
  if (mode === undefined && io.canDraw) return bar(io)
  return { update() {}, say: io.stderr, around: (print) => print(), close() {} }
}

/**
 * Runs work that shows its progress and that signals stop.
 * @param work receives the library's options for that, and the display, for its other output
 */
export async function runWithProgress<T>(
  io: Io,
  flags: ProgressFlags,
  work: (control: Required<ControlOptions>, display: ProgressDisplay) => Promise<T>,
): Promise<T> {
  const display = openProgress(flags.progress, io)
  return await io.interruptible(async (signal) => {
    try {
      return await work({ signal, onProgress: display.update }, display)
    } finally {
      display.close()
    }
  })
}

function jsonLines({ stderr }: Pick<Io, 'stderr'>): ProgressDisplay {
  return {
    update({ phase, position, size, dataBytes, elapsedSeconds, disks }) {
      const line = JSON.stringify({ phase, position, size, dataBytes, elapsedSeconds, disks })
      stderr(`${line}\n`)
    },
    say: stderr,
    around: (print) => print(),
    close() {},
  }
}

function bar(io: Pick<Io, 'stderr' | 'columns'>): ProgressDisplay {
  let line = ''
  let drawn = Number.NEGATIVE_INFINITY
  return {
    update(progress) {
      const now = performance.now()
      if (now - drawn < 1000 / REDRAWS) return
      drawn = now
      // The last column stays empty: writing there moves some terminals to the next line.
      line = formatProgress(progress, io.columns - 1)
      io.stderr(CLEAR + line)
    },
    say(text) {
      io.stderr(line === '' ? text : CLEAR + text + line)
    },
    async around(print) {
      if (line !== '') io.stderr(CLEAR)
      await print()
      if (line !== '') io.stderr(line)
    },
    close() {
      if (line !== '') io.stderr(CLEAR)
      line = ''
    },
  }
}

/** Name of a phase, in front of the bar. */
const PHASES: Partial<Record<Phase, string>> = { verify: 'verifying', check: 'checking' }

/** Phases whose positions are not bytes. */
const COUNTED: readonly Phase[] = ['chain', 'parity']

/**
 * One line: bar, percent, position, data, rate of data, and the time left at the pace so far. Where
 * the columns do not suffice parts are left out whole, the least important ones first: a number that
 * was cut would be another number.
 */
export function formatProgress(progress: Progress, columns = Number.POSITIVE_INFINITY): string {
  const { phase, position, size, dataBytes, elapsedSeconds } = progress
  if (phase === 'wait') return `waiting for others, ${formatDuration(elapsedSeconds)}`
  const done = size > 0 ? Math.min(position / size, 1) : 1
  const rate = elapsedSeconds > 0 ? Math.round(dataBytes / elapsedSeconds) : 0
  const left = done > 0 ? formatDuration(elapsedSeconds / done - elapsedSeconds) : '-:--'
  const copies = phase === 'copy' || phase === 'verify'
  const name = PHASES[phase] === undefined ? '' : `${PHASES[phase]} `
  const amount = (n: number) => (COUNTED.includes(phase) ? `${n}` : formatSize(n))
  const percent = `${Math.floor(done * 100)}%`.padStart(4)
  const parts = (
    characters: number,
    shown: { data: boolean; rate: boolean; position: boolean },
  ) => {
    const filled = Math.floor(done * characters)
    const drawn = `[${'='.repeat(filled)}${' '.repeat(characters - filled)}] `
    return [
      `${name}${characters > 0 ? drawn : ''}${percent}`,
      ...(shown.position ? [`${amount(position)} of ${amount(size)},`] : []),
      ...(shown.data && copies ? [`data ${formatSize(dataBytes)},`] : []),
      ...(shown.rate && copies ? [`${formatSize(rate)}/s,`] : []),
      `${left} left`,
    ].join(' ')
  }
  const candidates = [
    parts(BAR_CHARACTERS, { data: true, rate: true, position: true }),
    parts(BAR_CHARACTERS / 2, { data: true, rate: true, position: true }),
    parts(BAR_CHARACTERS / 2, { data: false, rate: true, position: true }),
    parts(BAR_CHARACTERS / 2, { data: false, rate: false, position: true }),
    parts(0, { data: false, rate: false, position: true }),
    parts(0, { data: false, rate: false, position: false }),
  ]
  return candidates.find((line) => line.length <= columns) ?? percent.trim()
}

/** `m:ss` or `h:mm:ss`. */
function formatDuration(seconds: number): string {
  const whole = Math.round(seconds)
  const two = (n: number) => n.toString().padStart(2, '0')
  const hours = Math.floor(whole / 3600)
  const minutes = Math.floor(whole / 60) % 60
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}
