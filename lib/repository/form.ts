/**
 * The files of JSON in a repository: what each may hold. What is read is checked by these rules, and
 * docs/repository.schema.json is made of them.
 */
import { BackupError } from '../errors.ts'
import { matching, type Rule } from '../schema.ts'
import { readJson } from './files.ts'

/** A kind of file. */
export interface Form<T> {
  /** Follows `is not` in messages. */
  what: string
  /** The field that says by which version of the rule the file was written. */
  version: 'version' | 'format'
  rule: Rule<T>
  /** No file of the kind is larger, bytes. */
  most: number
}

/** Of another directory no file is ever opened, whatever a record says. */
export const FILE_NAME = matching(/^[^./][^/]*$/, 'the name of a file')
/** ISO 8601 with the parts that RFC 3339 demands. */
export const TIME = matching(
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/,
  'a time',
)

/**
 * Reads a file of a repository. Fields that are not known are another version's, and nothing to this one.
 * @returns undefined if there is none
 * @throws BackupError BAD_RECORD; UNSUPPORTED if it is of a later version, IO
 */
export async function readForm<T>(path: string, form: Form<T>): Promise<T | undefined> {
  const value = await readJson(path, form.most)
  return value === undefined ? undefined : requireForm(path, value, form)
}

/**
 * Checks what was read of a file.
 * @throws BackupError BAD_RECORD; UNSUPPORTED if it is of a later version
 */
export function requireForm<T>(path: string, value: unknown, { what, version, rule }: Form<T>): T {
  const number = (value as Partial<Record<string, unknown>> | null)?.[version]
  if (Number.isInteger(number) && (number as number) > 1) {
    const why = `is of ${version} ${number}, which needs a newer version of this program`
    throw new BackupError('UNSUPPORTED', path, why)
  }
  const fault = rule.fault(value)
  if (fault === undefined) return value as T
  throw new BackupError('BAD_RECORD', path, `is not ${what}: ${fault}`)
}
