/** Parses a test file's output, in the Test Anything Protocol. */
import { existsSync, readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'

/** How many tests passed and failed. */
export interface Counts {
  passed: number
  failed: number
}

/** The named tests of a file: its subtests, not the assertions in them. Skipped ones do not count. */
export function namedTests(output: string): Counts {
  const results = output.split('\n').filter((line) => /^(not )?ok /.test(line))
  const counted = results.filter((line) => !/ # (SKIP|TODO)/i.test(line))
  const failed = counted.filter((line) => line.startsWith('not ')).length
  return { passed: counted.length - failed, failed }
}

/** Whether a line is the failure of an assertion, not that of a test around it, which has a time. */
function isAssertion(line: string | undefined): boolean {
  return line !== undefined && /^\s*not ok /.test(line) && !/ # time=/.test(line)
}

/**
 * Each line that says `not ok`, with the details below it and the names of the tests around it;
 * empty if there is none.
 */
export function failuresOf(output: string): string {
  const shown: string[] = []
  let details = false
  for (const line of output.split('\n')) {
    if (/^\s*not ok /.test(line) && !/ # (SKIP|TODO)/i.test(line)) {
      shown.push(line)
      details = false
    } else if (/^\s+---$/.test(line) && isAssertion(shown.at(-1))) {
      details = true
    } else if (/^\s*\.\.\.$/.test(line)) {
      if (details) shown.push('')
      details = false
    } else if (details) {
      shown.push(line)
    }
  }
  return shown.join('\n')
}

/** Places in compiled files, `dist/FILE.js:LINE:COLUMN`, as places in their sources. */
export function inSources(output: string): string {
  const maps = new Map<string, SourceMap | undefined>()
  return output.replace(/\bdist\/([\w./-]+)\.js:(\d+):(\d+)/g, (place, name, line, column) => {
    if (!maps.has(name)) maps.set(name, mapOf(`dist/${name}.js.map`))
    const entry = maps.get(name)?.findEntry(Number(line) - 1, Number(column) - 1)
    if (entry === undefined || !('originalLine' in entry)) return place
    return `${name}.ts:${entry.originalLine + 1}:${entry.originalColumn + 1}`
  })
}

function mapOf(path: string): SourceMap | undefined {
  return existsSync(path) ? new SourceMap(JSON.parse(readFileSync(path, 'utf8'))) : undefined
}
