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

/** A size for people: three significant digits and a binary unit (`1.5 GiB`). */
export function formatSize(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < names.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : Number(value.toPrecision(3))} ${names[unit]}`
}

/** How long ago something was, for people: in seconds, minutes, hours, up to two days; then days, years. */
export function formatAge(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000)
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit))
  // A clock was put back.
  if (seconds < 0) return 'to come'
  if (minutes < 1) return `${seconds} s`
  if (hours < 1) return `${minutes} min`
  if (hours < 48) return `${hours} h`
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
