/**
 * Round numbers from 0 to the first one at or above the largest value.
 * @param steps the most of them, without 0
 */
export function ticks(largest: number, steps = 7): number[] {
  if (!(largest > 0)) return [0, 1]
  const power = 10 ** Math.floor(Math.log10(largest / steps))
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => largest / size <= steps)!
  const digits = Math.max(0, -Math.floor(Math.log10(step)))
  const count = Math.ceil(largest / step - 1e-9)
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toFixed(digits)))
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/** A round number with its unit. */
export interface Tick {
  value: number
  label: string
}

/** Round sizes, all in one unit, as `ticks`. */
export function sizeTicks(largest: number, steps?: number): Tick[] {
  const power = Math.floor(Math.log(Math.max(largest, 1)) / Math.log(1024))
  const unit = 1024 ** power
  return ticks(largest / unit, steps).map((tick) => {
    return { value: tick * unit, label: `${tick} ${UNITS[power]}` }
  })
}
