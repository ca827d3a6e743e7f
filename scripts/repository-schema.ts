// The JSON Schema of a repository's files, made of the rules by which they are read. `--write` records it in
// docs/repository.schema.json; without, it is printed.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Form } from '../lib/repository/form.ts'
import { PRUNE_JOURNAL } from '../lib/repository/prune-journal.ts'
import { POINT } from '../lib/repository/record.ts'
import { MARK_FORM } from '../lib/repository/repository.ts'
import { RUN_JOURNAL } from '../lib/repository/run-journal.ts'
import { VERIFIED_FORM } from '../lib/repository/verified.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const RECORD = join(ROOT, 'docs/repository.schema.json')

/** The files by their definitions' names. */
export const FORMS: Record<string, { file: string; form: Form<unknown> }> = {
  repository: { file: 'REPO/repository.json', form: MARK_FORM },
  point: { file: 'REPO/MACHINE/POINT.json', form: POINT },
  run: { file: 'REPO/MACHINE/.run.json', form: RUN_JOURNAL },
  prune: { file: 'REPO/MACHINE/.prune.json', form: PRUNE_JOURNAL },
  verified: { file: 'REPO/MACHINE/.verified.json', form: VERIFIED_FORM },
}

export function describeSchema(): string {
  const definitions = Object.entries(FORMS).map(([name, { file, form }]) => {
    return [name, { title: `${file}: ${form.what}`, ...form.rule.json }] as const
  })
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Files of a repository of qcow2-backup, format 1',
    description:
      'Sizes are bytes, times are as in RFC 3339. Fields that are not named here are allowed, and ignored.',
    anyOf: definitions.map(([name]) => ({ $ref: `#/$defs/${name}` })),
    $defs: Object.fromEntries(definitions),
  }
  return `${JSON.stringify(schema, null, 2)}\n`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.includes('--write')) writeFileSync(RECORD, describeSchema())
  else process.stdout.write(describeSchema())
}
