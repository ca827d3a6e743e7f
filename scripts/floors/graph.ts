import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'

/** One side of the house. */
export interface Side {
  /** Its folder, below the root. */
  folder: string
  /** Which files belong to it. */
  files: RegExp
  /** Finds the name of an imported module; group 1. With the flag g: a line may import several. */
  imports: RegExp
  /** The imported file, below `folder`, for a name found in `file`. */
  resolve: (file: string, name: string) => string
  /** Rooms, lowest floor first; rooms of one floor do not know each other. */
  floors: readonly (readonly string[])[]
}

/** An import, of a type or of a value. */
export interface Arrow {
  to: string
  line: number
}

/** A file of a side. */
export interface House {
  side: Side
  /** Lines of each file, by its path below the side's folder. */
  lines: Map<string, number>
  /** The imports of each file. */
  arrows: Map<string, Arrow[]>
}

/** Imports of TypeScript: each statement is looked for as a whole, wherever its lines break. */
export const TYPESCRIPT = {
  files: /\.ts$/,
  imports: /(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']*)'/g,
  resolve: (file: string, name: string) => normalize(join(dirname(file), name)),
}

/** Includes of C++, which are named from the side's folder. A .cc and its .h are one thing. */
export const CPP = {
  files: /\.(cc|h)$/,
  imports: /^[ \t]*#[ \t]*include[ \t]*"([^"]*)"/gm,
  resolve: (_file: string, name: string) => name,
}

/** The first part of a path below the side's folder: a room, or a file by itself. */
export function roomOf(path: string): string {
  return path.split('/')[0].replace(/\.ts$/, '')
}

/** Reads the files of a side. */
export function readHouse(root: string, side: Side): House {
  const top = join(root, side.folder)
  const house: House = { side, lines: new Map(), arrows: new Map() }
  const entries = readdirSync(top, { recursive: true, withFileTypes: true })
  for (const entry of entries) {
    if (!entry.isFile() || !side.files.test(entry.name)) continue
    const path = join(entry.parentPath, entry.name)
    const file = relative(top, path)
    const text = readFileSync(path, 'utf8')
    house.lines.set(file, text.split('\n').length - 1)
    house.arrows.set(file, arrowsOf(side, file, text))
  }
  return house
}

function arrowsOf(side: Side, file: string, text: string): Arrow[] {
  return Array.from(text.matchAll(side.imports), (match) => ({
    to: side.resolve(file, match[1]),
    line: text.slice(0, match.index + match[0].length).split('\n').length,
  }))
}
