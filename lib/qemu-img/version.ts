/** A version of QEMU, as far as what it prints depends on it. */
export interface QemuVersion {
  major: number
  minor: number
}

/** The newest whose output is known: what is printed unless another version is asked for. */
export const NEWEST: QemuVersion = { major: 10, minor: 1 }

/**
 * Reads a version: `8.2`, or one with more behind it, as `7.2.22 (Debian …)`.
 * @returns undefined if the text does not begin with a version
 */
export function parseVersion(text: string): QemuVersion | undefined {
  const match = /^(\d{1,4})\.(\d{1,4})(?!\d)/.exec(text)
  return match ? { major: Number(match[1]), minor: Number(match[2]) } : undefined
}

/** Whether a version is `major.minor` or newer. */
export function atLeast(version: QemuVersion, major: number, minor: number): boolean {
  return version.major === major ? version.minor >= minor : version.major > major
}
