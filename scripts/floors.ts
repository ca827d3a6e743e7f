// Lint: an import in lib/ and an include in native/ stays in its room or goes to a lower floor.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'

/** Rooms of one side of the house, lowest floor first; rooms of one floor do not know each other. */
interface Side {
  folder: string
  files: RegExp
  /** Finds the name of what a line imports; group 1. */
  imports: RegExp
  /** The imported file, below `folder`, for a name found in `file`. */
  resolve: (file: string, name: string) => string
  floors: readonly (readonly string[])[]
}

const SIDES: readonly Side[] = [
  {
    folder: 'lib',
    files: /\.ts$/,
    imports: /(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']*)'/,
    resolve: (file, name) => normalize(join(dirname(file), name)),
    floors: [
      ['text'],
      ['errors', 'log'],
      ['units', 'native', 'files', 'schema', 'progress', 'turns'],
      ['options'],
      ['extents', 'format', 'qmp'],
      ['nbd', 'image'],
      ['source', 'check'],
      ['plan', 'block-status'],
      ['compare'],
      ['qemu-img'],
      ['copy', 'edit'],
      ['backup'],
      ['maintain', 'live'],
      ['parity'],
      ['api'],
      ['index'],
      ['cli'],
    ],
  },
  {
    folder: 'native',
    files: /\.(cc|h)$/,
    imports: /^\s*#\s*include\s*"([^"]*)"/,
    resolve: (_file, name) => name,
    floors: [
      ['base'],
      ['format', 'codec', 'io'],
      ['image', 'source'],
      ['copy'],
      ['compare'],
      ['napi'],
    ],
  },
]

/** The first part of a path below the side's folder: a room, or a file that stands by itself. */
function roomOf(path: string): string {
  return path.split('/')[0].replace(/\.ts$/, '')
}

/** What is wrong in one line of a file, if anything. */
function fault(side: Side, file: string, line: string): string | undefined {
  const name = side.imports.exec(line)?.[1]
  if (name === undefined) return undefined
  const from = roomOf(file)
  const to = roomOf(side.resolve(file, name))
  if (from === to) return undefined
  const floor = (room: string): number => side.floors.findIndex((rooms) => rooms.includes(room))
  if (floor(to) < 0) return `'${name}' is in no room of ${side.folder}/`
  if (floor(to) < floor(from)) return undefined
  return `${from} must not import from ${to}, which is not on a lower floor`
}

/** Prints each fault as file:line; the number of faults. */
function check(side: Side): number {
  let faults = 0
  const report = (where: string, what: string): void => {
    console.error(`${where}: ${what}`)
    faults++
  }
  for (const entry of readdirSync(side.folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || !side.files.test(entry.name)) continue
    const path = join(entry.parentPath, entry.name)
    const file = relative(side.folder, path)
    if (!side.floors.flat().includes(roomOf(file))) report(path, 'stands in a room without a floor')
    const lines = readFileSync(path, 'utf8').split('\n')
    for (const [index, line] of lines.entries()) {
      const what = fault(side, file, line)
      if (what) report(`${path}:${index + 1}`, what)
    }
  }
  return faults
}

const faults = SIDES.map(check).reduce((sum, n) => sum + n, 0)
process.exitCode = faults > 0 ? 1 : 0
