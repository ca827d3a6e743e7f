import type { Progress } from '../backup/types.ts'
import { formatSize } from '../units.ts'

/** Shows on stderr how far a copy is. */
export interface ProgressDisplay {
  update(progress: Progress): void
  /** Removes what must not stay on the terminal. */
  close(): void
}

/** Redraws a second; each costs a write to the terminal. */
const REDRAWS = 5
const BAR_CHARACTERS = 24

/**
 * @param mode `json`: a line of JSON per update; `false`: nothing; undefined: a bar if stderr is a
 * terminal, else nothing
 */
export async function openProgress(mode: 'json' | false | undefined): Promise<ProgressDisplay> {
  if (mode === 'json') return jsonLines()
  if (mode === undefined && process.stderr.isTTY) return bar()
  return { update() {}, close() {} }
}

function jsonLines(): ProgressDisplay {
  return {
    update({ phase, position, size, dataBytes, elapsedSeconds }) {
      const line = JSON.stringify({ phase, position, size, dataBytes, elapsedSeconds })
      process.stderr.write(`${line}\n`)
    },
    close() {},
  }
}

/** Loads its module only here: most runs have no terminal. */
async function bar(): Promise<ProgressDisplay> {
  const { default: cliProgress } = await import('cli-progress')
  const line = new cliProgress.SingleBar({
    format: (_options, _params, payload) => formatProgress(payload as Progress),
    stream: process.stderr,
    fps: REDRAWS,
    clearOnComplete: true,
  })
  let started = false
  return {
    update(progress) {
      if (started) line.update(progress.position, progress)
      else line.start(progress.size, progress.position, progress)
      started = true
    },
    close() {
      if (started) line.stop()
    },
  }
}

/** One line: bar, percent, position, data, rate of data, and the time left at the pace so far. */
export function formatProgress(progress: Progress): string {
  const { phase, position, size, dataBytes, elapsedSeconds } = progress
  const done = size > 0 ? Math.min(position / size, 1) : 1
  const filled = Math.floor(done * BAR_CHARACTERS)
  const rate = elapsedSeconds > 0 ? Math.round(dataBytes / elapsedSeconds) : 0
  const left = done > 0 ? formatDuration(elapsedSeconds / done - elapsedSeconds) : '-:--'
  return [
    ...(phase === 'verify' ? ['verifying'] : []),
    `[${'='.repeat(filled)}${' '.repeat(BAR_CHARACTERS - filled)}]`,
    `${Math.floor(done * 100)
      .toString()
      .padStart(3)}%`,
    `${formatSize(position)} of ${formatSize(size)},`,
    ...(phase === 'compare' ? [] : [`data ${formatSize(dataBytes)},`, `${formatSize(rate)}/s,`]),
    `${left} left`,
  ].join(' ')
}

/** `m:ss` or `h:mm:ss`. */
function formatDuration(seconds: number): string {
  const whole = Math.round(seconds)
  const two = (n: number) => n.toString().padStart(2, '0')
  const hours = Math.floor(whole / 3600)
  const minutes = Math.floor(whole / 60) % 60
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`
}
