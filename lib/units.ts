const UNITS: Record<string, number> = {
  '': 1,
  B: 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
}

/**
 * Reads a size as people write it: `64K`, `1M`, `2G`, `1T` (powers of 1024) or bytes.
 * @returns bytes; undefined if it is not a whole number of bytes from 0 to 2^53 − 1
 */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)([BKMGT]?)$/i.exec(text.trim())
  const bytes = match ? Number(match[1]) * UNITS[match[2].toUpperCase()] : Number.NaN
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** A size exactly, as `parseSize` reads it: `64K`, `512`. */
export function shortSize(bytes: number): string {
  const unit = ['T', 'G', 'M', 'K'].find((name) => bytes % UNITS[name] === 0)
  return unit === undefined || bytes === 0 ? `${bytes}` : `${bytes / UNITS[unit]}${unit}`
}

const SHOWN_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** A size for people: three significant digits and a binary unit (`1.5 GiB`). */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < SHOWN_UNITS.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${SHOWN_UNITS[unit]}`
}

/** How long ago something was, for people: in seconds, minutes, hours, up to two days; then days, years. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000)
  // A clock was put back.
  if (seconds < 0) return 'to come'
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`
  const days = Math.floor(seconds / 86400)
  return days < 1000 ? `${days} d` : `${(days / 365.25).toFixed(1)} y`
}

/** The next multiple of `unit` at or above `n`. */
export function roundUp(n: number, unit: number): number {
  return Math.ceil(n / unit) * unit
}

/** The next multiple of `unit` at or below `n`. */
export function roundDown(n: number, unit: number): number {
  return Math.floor(n / unit) * unit
}
