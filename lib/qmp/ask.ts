import { BackupError } from '../errors.ts'
import type { QmpClient } from './client.ts'
import type { QmpObject } from './protocol.ts'

/**
 * What an answer must be like before it is used: a kind, a list of something, or an object with certain
 * fields, besides any others; those whose names end with `?` may be missing. A `size` is a whole number of bytes.
 */
export type Shape =
  | 'string'
  | 'number'
  | 'boolean'
  | 'size'
  | readonly [Shape]
  | { readonly [field: string]: Shape }

/**
 * Runs a command whose answer is of a certain shape.
 * @throws BackupError as QmpClient.execute; IO if the answer is of another shape
 */
export async function ask<T>(
  client: QmpClient,
  command: string,
  shape: Shape,
  args?: QmpObject,
): Promise<T> {
  return requireShape<T>(await client.execute(command, args), shape, client.monitor, command)
}

/** @throws BackupError IO if the answer to a command is of another shape */
export function requireShape<T>(
  answer: unknown,
  shape: Shape,
  monitor: string,
  command: string,
): T {
  const fault = faultOf(answer, shape, command)
  if (fault === undefined) return answer as T
  throw new BackupError('IO', monitor, `gave an answer that is not of QEMU's form: ${fault}`)
}

/** @param where the value is, as in JavaScript */
function faultOf(value: unknown, shape: Shape, where: string): string | undefined {
  if (typeof shape === 'string') {
    const isSound = shape === 'size' ? isSize(value) : typeof value === shape
    return isSound ? undefined : `${where} is no ${shape}`
  }
  if (isList(shape)) {
    if (!Array.isArray(value)) return `${where} is no list`
    return first(value, (item, i) => faultOf(item, shape[0], `${where}[${i}]`))
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return `${where} is no object`
  }
  return first(Object.entries(shape), ([name, inner]) => {
    const isOptional = name.endsWith('?')
    const field = isOptional ? name.slice(0, -1) : name
    const isThere = Object.hasOwn(value, field)
    if (!isThere && isOptional) return undefined
    return faultOf(isThere ? (value as QmpObject)[field] : undefined, inner, `${where}.${field}`)
  })
}

function isList(shape: Exclude<Shape, string>): shape is readonly [Shape] {
  return Array.isArray(shape)
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function first<T>(
  items: readonly T[],
  faultAt: (item: T, index: number) => string | undefined,
): string | undefined {
  for (const [index, item] of items.entries()) {
    const fault = faultAt(item, index)
    if (fault !== undefined) return fault
  }
  return undefined
}
