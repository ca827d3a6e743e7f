const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB']

/**
 * A size for people as QEMU prints it: three digits, and the next unit from 1000 of one on
 * (`0.977 MiB`; just below 1000 it may round to `1e+03 KiB`).
 * @param bytes a whole number, 0 to 2^53 − 1
 */
export function humanSize(bytes: number): string {
  let value = bytes
  let unit = 0
  for (; value >= 1000; unit++) value /= 1024
  return `${threeDigits(value)} ${UNITS[unit]}`
}

/** C's `%.3g` of a number that is 0, or from 0.1 to below 1000. */
function threeDigits(value: number): string {
  const decimals = value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3
  const scaled = value * 10 ** decimals
  // C rounds a tie to the even digit, JavaScript up.
  const tie = scaled % 1 === 0.5
  const rounded = tie ? 2 * Math.round(scaled / 2) : Math.round(scaled)
  const result = rounded / 10 ** decimals
  return result === 1000 ? '1e+03' : String(result)
}
