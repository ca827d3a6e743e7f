import type { Side } from './plan.ts'

/** Guest bytes of one side that could not be read. */
export interface Unreadable {
  kind: 'unreadable'
  start: number
  length: number
  side: Side
  /** The system or the server refused, with `errnum`; the file shrank; a compressed cluster is invalid. */
  reason: 'read' | 'shrank' | 'damaged'
  errnum: number
}

/** A finding of the job: a range of guest bytes. */
export type Found = { kind: 'differs'; start: number; length: number } | Unreadable
