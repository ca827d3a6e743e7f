// The public API as text: every export with its signature, and the types that these name. `--write`
// records it in docs/api.txt; without, the text is printed. Reads the declarations in dist.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const INDEX = join(ROOT, 'dist/lib/index.d.ts')
export const RECORD = join(ROOT, 'docs/api.txt')

/** A file of declarations: its statements by the names they declare, and where other names are from. */
interface Declarations {
  own: Map<string, string[]>
  imported: Map<string, { file: string; name: string }>
}

const files = new Map<string, Declarations>()

const DECLARED =
  /^(?:export )?(?:declare )?(?:abstract )?(?:async )?(?:interface|type|class|function|const|enum) ([\w$]+)/
const NAMES = /^(?:import|export)(?: type)? \{([^}]*)\} from '(\.[^']*)'/

function read(file: string): Declarations {
  const known = files.get(file)
  if (known) return known
  const declarations: Declarations = { own: new Map(), imported: new Map() }
  files.set(file, declarations)
  for (const statement of statementsOf(readFileSync(file, 'utf8'))) {
    const names = NAMES.exec(statement)
    if (names) {
      const from = join(dirname(file), names[2].replace(/\.[jt]s$/, '.d.ts'))
      for (const one of names[1].split(',').map((name) => name.trim().replace(/^type /, ''))) {
        const [name, as = name] = one.split(' as ')
        if (name !== '') declarations.imported.set(as, { file: from, name })
      }
      continue
    }
    const name = DECLARED.exec(statement)?.[1]
    if (name === undefined) continue
    const text = statement.replace(/^export /, '').replace(/^declare /, '')
    declarations.own.set(name, [...(declarations.own.get(name) ?? []), text])
  }
  return declarations
}

/** Top-level statements without comments; each begins at the start of a line. */
function statementsOf(text: string): string[] {
  const bare = text.replace(/\/\*.*?\*\//gs, '').replace(/^\/\/.*$/gm, '')
  const statements: string[] = []
  for (const line of bare.split('\n').filter((one) => one.trim() !== '')) {
    if (/^[\w]/.test(line)) statements.push(line.trimEnd())
    else statements[statements.length - 1] += `\n${line.trimEnd()}`
  }
  return statements
}

/** The file that declares a name, through re-exports. */
function find(file: string, name: string): { file: string; name: string } | undefined {
  const { own, imported } = read(file)
  if (own.has(name)) return { file, name }
  const from = imported.get(name)
  return from && find(from.file, from.name)
}

/** The text of the API: exports in alphabetical order, then their declarations. */
export function describeApi(): string {
  const exported: string[] = []
  const found = new Map<string, string>()
  const add = (file: string, name: string) => {
    const at = find(file, name)
    const key = at && `${at.file} ${at.name}`
    if (!at || !key || found.has(key)) return
    const text = read(at.file).own.get(at.name)!.join('\n')
    found.set(key, text)
    for (const [word] of text.matchAll(/[A-Za-z_$][\w$]*/g))
      if (word !== at.name) add(at.file, word)
  }
  for (const [as, { file, name }] of [...read(INDEX).imported].sort(byName)) {
    const at = find(file, name)
    if (!at) throw new Error(`${as}: its declaration was not found`)
    exported.push(as === at.name ? as : `${as} (declared as ${at.name})`)
    add(file, name)
  }
  const texts = [...new Set(found.values())].sort()
  const heading = 'What qcow2-backup exports; scripts/api writes this file.'
  return `${heading}\n\n${exported.join('\n')}\n\n${texts.join('\n\n')}\n`
}

function byName([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--write')) writeFileSync(RECORD, describeApi())
  else process.stdout.write(describeApi())
}
