import { mkdir, writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join, resolve } from 'node:path'
import { BackupError } from '../../lib/errors.ts'
import { formatSize } from '../../lib/units.ts'
import { CASES } from './cases/index.ts'
import { DataStore } from './data.ts'
import { describeMachine } from './machine.ts'
import { HELP, type Options, parseOptions } from './options.ts'
import { renderReport } from './report.ts'
import { requireDirectIO, requireProgram, requireSpace, requireTools } from './requirements.ts'
import type { CaseResult, Results } from './results.ts'
import { runCase } from './runner.ts'
import { renderTable } from './table.ts'

/** The checkout: this file runs from its dist/scripts/perf. */
const ROOT = resolve(import.meta.dirname, '../../..')
const PROGRAM = join(ROOT, 'dist/lib/cli/main.cjs')

/** @returns exit status: 1 if a case failed; a missed limit is a mark in the table, no failure */
async function main(args: string[], signal: AbortSignal): Promise<number> {
  const known = CASES.map((perfCase) => perfCase.name)
  const options = parseOptions(args, known)
  if (options.help) {
    process.stdout.write(`${HELP}\nCases: ${known.join(', ')}\n`)
    return 0
  }
  const results = await measureAll(options, signal)
  const out = join(ROOT, 'perf')
  await mkdir(out, { recursive: true })
  await writeFile(join(out, 'results.json'), `${JSON.stringify(results, null, 2)}\n`)
  await writeFile(join(out, 'report.html'), renderReport(results))
  process.stdout.write(renderTable(results))
  log('wrote perf/results.json and perf/report.html')
  return results.cases.some((c) => 'failure' in c) ? 1 : 0
}

async function measureAll(options: Options, signal: AbortSignal): Promise<Results> {
  await requireTools(signal)
  if (!options.ours) await requireProgram(PROGRAM)
  const dir = resolve(options.dir ?? join(ROOT, 'perf/data'))
  await mkdir(dir, { recursive: true })
  await requireDirectIO(dir)
  const data = new DataStore(dir, options.quick, signal)
  const free = await requireSpace(dir, data.bytesNeeded)
  const machine = await describeMachine(dir, signal)
  log(
    `${dir}: ${machine.fileSystem}, ${formatSize(free)} free; ` +
      `disks and targets take up to ${formatSize(data.bytesNeeded)}`,
  )
  const context = {
    ours: options.ours ?? [process.execPath, PROGRAM],
    data,
    dir,
    pairs: options.pairs,
    signal,
    show: (text: string) => anonymous(text, dir),
    log,
  }
  const cases: CaseResult[] = []
  for (const perfCase of CASES) {
    if (options.cases.includes(perfCase.name)) cases.push(await runCase(perfCase, context))
  }
  return { machine, quick: options.quick, cases }
}

/** Commands as one would type them in the checkout, `$DIR` standing for the data directory. */
function anonymous(text: string, dir: string): string {
  return text
    .replaceAll(dir, () => '$DIR')
    .replaceAll(process.execPath, 'node')
    .replaceAll(`${ROOT}/`, '')
}

function log(line: string): void {
  process.stderr.write(`perf: ${line}\n`)
}

const controller = new AbortController()
let interrupted: 'SIGINT' | 'SIGTERM' | undefined
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    interrupted = name
    controller.abort()
  })
}
try {
  process.exitCode = await main(process.argv.slice(2), controller.signal)
} catch (error) {
  if (interrupted) {
    log(`stopped by ${interrupted}; the targets are removed`)
    process.exitCode = 128 + constants.signals[interrupted]
  } else if (error instanceof BackupError) {
    log(error.message)
    process.exitCode = error.code === 'USAGE' ? 2 : 1
  } else {
    throw error
  }
}
