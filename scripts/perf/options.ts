import { parseArgs } from 'node:util'
import { usageError } from '../../lib/errors.ts'

/** Options of the command line. */
export interface Options {
  /** Names of the cases to run, in the order in which they are known; all without `--only`. */
  cases: string[]
  /** Smaller disks and fewer pairs: a look in a minute or two, not a verdict. */
  quick: boolean
  /** Directory of the disks and targets; undefined for the default. */
  dir?: string
  /** Measured pairs of each case. */
  pairs: number
  /** The command to measure in place of this checkout's program. */
  ours?: string[]
  help: boolean
}

export const HELP = `Usage: npm run perf -- [options]

Runs qcow2-backup and its peer in turn, and writes perf/results.json and perf/report.html.

  --only CASE[,CASE]  run only these cases
  --quick             smaller disks, two pairs: a first look, not a verdict
  --dir DIR           where the disks are made and kept, on a file system with O_DIRECT
                      (default: perf/data in the checkout)
  --pairs N           measured pairs of each case (default: 5; quick: 2)
  --ours COMMAND      measure this command, e.g. an earlier build: 'node /old/dist/lib/cli/main.cjs'
  --help              show this text
`

/**
 * Reads the command line.
 * @param known names of all cases
 * @throws BackupError USAGE for an unknown option or case and a number of pairs below 1
 */
export function parseOptions(args: string[], known: string[]): Options {
  const { only, pairs, ours, dir, quick = false, help = false } = parse(args)
  const wanted = only?.split(',')
  const unknown = wanted?.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw usageError('--only', `no case '${unknown}'; there are ${known.join(', ')}`)
  }
  if (pairs !== undefined && !/^[1-9]\d*$/.test(pairs)) {
    throw usageError('--pairs', `'${pairs}' is not a whole number above 0`)
  }
  const command = ours?.trim().split(/\s+/)
  if (command?.[0] === '') throw usageError('--ours', 'the command is empty')
  return {
    cases: wanted ? known.filter((name) => wanted.includes(name)) : known,
    quick,
    dir,
    pairs: pairs === undefined ? (quick ? 2 : 5) : Number(pairs),
    ours: command,
    help,
  }
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        only: { type: 'string' },
        quick: { type: 'boolean' },
        dir: { type: 'string' },
        pairs: { type: 'string' },
        ours: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values
  } catch (error) {
    throw usageError('arguments', (error as Error).message)
  }
}
