import { type Command, Option } from 'commander'

/** How results and progress are printed: options of the command line alone. */

/** Values of the flags that `addOutputFlags` adds. */
export interface OutputFlags extends ProgressFlags {
  json?: boolean
}

export interface ProgressFlags {
  progress?: 'json' | false
}

/** @param json the help of `--json` */
export function addOutputFlags(
  command: Command,
  json = 'print the result as one JSON object',
): Command {
  return command
    .option('--json', json)
    .addOption(
      new Option('--progress <form>', 'print progress on stderr as lines of JSON').choices([
        'json',
      ]),
    )
    .option('--no-progress', 'no progress bar on a terminal')
}
