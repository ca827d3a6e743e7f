/**
 * Runs test files, several at a time, each in a process of its own: `run-tests.js FILE.js...`; those
 * that QEMU judges again with each newer QEMU that is at hand.
 * Prints failures. The output of all files is in .tap/results.tap, `PASSED FAILED` of the
 * named tests in .tap/counts.
 *
 * Not `tap run`: it loads itself into every Node process that a test starts, and then our program
 * takes three times as long to start. There are a thousand such starts.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { environmentOf, newerQemus, newerRuns, type Run } from './newer-qemus.ts'
import { failuresOf, inSources, namedTests } from './tap-output.ts'

/** Milliseconds until a file is taken to hang, on however slow a machine. */
const HANGS = 1_800_000
const THOROUGH = process.env.THOROUGH === '1'
const DURATIONS = '.tap/durations.json'
/** Files that take long, for a first run: whatever starts last should be short. */
const LONG = [
  'faults/bounded',
  'live/rounds',
  'live/kills',
  'live/guest',
  'qemu-img/campaign-1',
  'qemu-img/arguments',
  'qemu-img/campaign-2',
  'machine/libvirt/killed',
  'live/libvirt',
  'machine/libvirt/live',
  'maintain/commit',
  'qemu-img/hostile',
  'maintain/edit-bitmap',
  'maintain/commit-crashes',
  'compare/disks',
  'check/repair',
  'faults/kill',
  'cli/commands/commit',
  'backup/incremental-overlays',
  'faults/publish',
  'maintain/diff',
  'faults/storage',
  'backup/compress',
  'backup/matrix',
  'maintain/torn-writes',
  'maintain/diff-nbd',
  'maintain/bitmap-crashes',
]

interface Ended {
  /** The file, and the QEMU if it is not the installed one. */
  title: string
  output: string
  /** Why the file failed although none of its tests did; undefined if it did not. */
  crash?: string
  seconds: number
}

/** Processes that run, each the leader of a group. */
const running = new Set<ChildProcess>()

function killGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

function titleOf({ file, qemu }: Run): string {
  return qemu === undefined ? file : `${file} with ${qemu}`
}

function start(run: Run): Promise<Ended> {
  const { file } = run
  const started = process.uptime()
  // Without source maps, which take a sixth of what a short file needs: failures are mapped here.
  const child = spawn(process.execPath, [file], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    // tap's own limit, of 30 seconds, is for machines with nothing else to do.
    env: { TAP_TIMEOUT: String(HANGS / 1000), ...process.env, ...environmentOf(run, THOROUGH) },
  })
  running.add(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text
    })
  }
  let hung = false
  const timer = setTimeout(() => {
    hung = true
    killGroup(child)
  }, HANGS)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status, signal) => {
      clearTimeout(timer)
      running.delete(child)
      // Servers that a test did not stop.
      killGroup(child)
      const seconds = process.uptime() - started
      const { passed, failed } = namedTests(output)
      const ended: Ended = { title: titleOf(run), output, seconds }
      if (hung) ended.crash = `took more than ${HANGS / 1000} s`
      else if (failed === 0 && status !== 0) ended.crash = `ended with ${signal ?? status}`
      else if (passed + failed === 0 && !/# SKIP/i.test(output)) ended.crash = 'has no tests'
      resolve(ended)
    })
  })
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    for (const child of running) killGroup(child)
    process.exit(130)
  })
}

function longestFirst(runs: readonly Run[]): Run[] {
  const before: Record<string, number> = existsSync(DURATIONS)
    ? JSON.parse(readFileSync(DURATIONS, 'utf8'))
    : {}
  const guess = (file: string) => {
    const index = LONG.findIndex((name) => file.endsWith(`test/${name}.test.js`))
    return index === -1 ? 0 : 1000 - index
  }
  const weight = (run: Run) => before[titleOf(run)] ?? guess(run.file)
  return [...runs].sort((a, b) => weight(b) - weight(a))
}

const files = process.argv.slice(2)
const runs: Run[] = [
  ...files.map((file) => ({ file })),
  ...newerRuns(files, newerQemus(), THOROUGH),
]
const waiting = longestFirst(runs)
/** Files that run now: their directories have one name, whichever QEMU they run with. */
const busy = new Set<string>()
const results: Ended[] = []

function report({ title, output, crash, seconds }: Ended): void {
  const name = title.replace(/^dist\//, '').replace(/js( |$)/, 'ts$1')
  const failures = inSources(failuresOf(output))
  if (crash || failures !== '') {
    console.log(
      `FAILED: ${name}${crash ? `: ${crash}` : ''}\n${crash ? inSources(output) : failures}`,
    )
  } else if (process.stdout.isTTY) {
    console.log(`${results.length}/${runs.length} ${name} ${seconds.toFixed(1)} s`)
  }
}

/** The next that can run; a file that waits for another is left to that one's runner. */
function next(): Run | undefined {
  const at = waiting.findIndex(({ file }) => !busy.has(file))
  return at < 0 ? undefined : waiting.splice(at, 1)[0]
}

async function work(): Promise<void> {
  for (let run = next(); run; run = next()) {
    busy.add(run.file)
    const ended = await start(run)
    busy.delete(run.file)
    results.push(ended)
    report(ended)
  }
}

mkdirSync('.tap', { recursive: true })
// More than there are processors: tests wait for other programs and for disks more than half of the time.
await Promise.all(Array.from({ length: 2 * availableParallelism() }, work))

const counts = results.map(({ output, crash }) => {
  const { passed, failed } = namedTests(output)
  return { passed, failed: failed + (crash ? 1 : 0) }
})
const passed = counts.reduce((sum, one) => sum + one.passed, 0)
const failed = counts.reduce((sum, one) => sum + one.failed, 0)
writeFileSync('.tap/counts', `${passed} ${failed}\n`)
writeFileSync(
  '.tap/results.tap',
  results.map(({ title, output }) => `# ${title}\n${output}`).join('\n'),
)
if (files.length > 10) {
  const durations = results.map(({ title, seconds }) => [title, seconds] as const)
  writeFileSync(DURATIONS, `${JSON.stringify(Object.fromEntries(durations), undefined, 1)}\n`)
}
if (files.length > 10) {
  const longest = [...results].sort((a, b) => b.seconds - a.seconds).slice(0, 12)
  const named = longest.map(({ title, seconds }) => {
    return `${title.replace('dist/test/', '').replace('.test.js', '')} ${Math.round(seconds)} s`
  })
  console.log(`longest: ${named.join(', ')}`)
}
if (failed > 0) process.exitCode = 1
