import type { Snapshot } from '../../format/qcow2/snapshots.ts'
import { encodeText } from '../../text.ts'
import { humanSize } from '../human-size.ts'
import { atLeast, type QemuVersion } from '../version.ts'

/** The columns of the list: id, name, size of the state, date, clock, instructions. */
type Row = [string, string, string, string, string, string]

/** The internal snapshots of an image, a line to each below a header, as QEMU prints them. */
export function snapshotList(snapshots: readonly Snapshot[], version: QemuVersion): string[] {
  if (!atLeast(version, 9, 0)) {
    const header: Row = ['ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT']
    return [header, ...snapshots.map((one) => rowOf(one, 2, ''))].map(narrow)
  }
  const header: Row = ['ID', 'TAG', 'VM_SIZE', 'DATE', 'VM_CLOCK', 'ICOUNT']
  return [header, ...snapshots.map((one) => rowOf(one, 4, '--'))].map(wide)
}

/** @param notCounted text for instructions that were not counted */
function rowOf(snapshot: Snapshot, hourDigits: number, notCounted: string): Row {
  const { id, name, vmStateSize, dateSeconds, vmClock, instructions } = snapshot
  return [
    id,
    name,
    humanSize(Number(vmStateSize)),
    formatDate(dateSeconds),
    formatClock(vmClock, hourDigits),
    instructions === undefined ? notCounted : String(BigInt.asIntN(64, instructions)),
  ]
}

/** Up to 8.2. */
function narrow([id, name, size, date, clock, instructions]: Row): string {
  return (
    `${left(id, 9)} ${left(name, 16)} ${right(size, 8)}${right(date, 20)}${right(clock, 13)}` +
    right(instructions, 11)
  )
}

/** Since 9.0. */
function wide([id, name, size, date, clock, instructions]: Row): string {
  return (
    `${left(id, 7)} ${left(name, 16)} ${right(size, 8)} ${right(date, 19)} ${right(clock, 15)} ` +
    right(instructions, 10)
  )
}

/** Columns are as wide in bytes as C's printf counts them. */
function left(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - encodeText(text).length))
}

function right(text: string, width: number): string {
  return ' '.repeat(Math.max(0, width - encodeText(text).length)) + text
}

/** Local time. */
function formatDate(seconds: number): string {
  const date = new Date(seconds * 1000)
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-')
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`
}

/** @param nanoseconds how long the guest had run */
function formatClock(nanoseconds: bigint, hourDigits: number): string {
  const milliseconds = nanoseconds / 1_000_000n
  const seconds = Number(milliseconds / 1000n)
  const hours = String(Math.floor(seconds / 3600)).padStart(hourDigits, '0')
  const rest = String(milliseconds % 1000n).padStart(3, '0')
  return `${hours}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}.${rest}`
}

function two(number: number): string {
  return String(number).padStart(2, '0')
}
