/** A version of QEMU, as far as its output depends on it. */
export interface QemuVersion {
  major: number
  minor: number
  /** As Debian packages it, with changes of its own. */
  debian?: true
}

/** The newest that the tests compare us with: the default. */
export const NEWEST: QemuVersion = { major: 11, minor: 1 }

/**
 * Reads a version: `8.2`, or one followed by more, as `7.2.22 (Debian …)`.
 * @returns undefined if the text does not begin with a version
 */
export function parseVersion(text: string): QemuVersion | undefined {
  const match = /^(\d{1,4})\.(\d{1,4})(?!\d)/.exec(text)
  if (!match) return undefined
  const version: QemuVersion = { major: Number(match[1]), minor: Number(match[2]) }
  if (text.includes('(Debian ')) version.debian = true
  return version
}

/** Whether a version is `major.minor` or newer. */
export function atLeast(version: QemuVersion, major: number, minor: number): boolean {
  return version.major === major ? version.minor >= minor : version.major > major
}

/**
 * Whether options are as they were rewritten for 10.1: with longer names, and errors of other words.
 * Debian's 10.0 has a draft of that.
 */
export function hasRewrittenOptions(version: QemuVersion): boolean {
  return atLeast(version, 10, 1) || hasDraftOptions(version)
}

/** Whether they are that draft, which has other words in places. */
export function hasDraftOptions({ major, minor, debian }: QemuVersion): boolean {
  return major === 10 && minor === 0 && debian === true
}

/** A question whether a version is `major.minor` or newer. */
export function since(major: number, minor: number): (version: QemuVersion) => boolean {
  return (version) => atLeast(version, major, minor)
}
