import { argumentError } from '../errors.ts'
import { option, PATH } from '../schema.ts'

/** The flag that names the repository. */
export const REPOSITORY_OPTIONS = {
  repository: option(PATH, 'the repository', { flag: 'repo', value: 'dir' }),
} as const

/** @throws BackupError USAGE if there is none */
export function requireRepository(repository: string | undefined): string {
  if (repository !== undefined) return repository
  throw argumentError('repository', 'missing; it names the directory of the backups')
}

/** The parts of `MACHINE[@POINT]`. A point has no @ in its name; a machine may: by itself it is `MACHINE@`. */
export function machineAndPoint(text: string): { machine: string; point?: string } {
  const [, machine, point] = /^(.+)@([^@]*)$/s.exec(text) ?? []
  return machine === undefined ? { machine: text } : { machine, ...(point !== '' && { point }) }
}
