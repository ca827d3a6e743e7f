/** Whether QEMU's cache modes read past the page cache. */
const DIRECT: Readonly<Record<string, boolean>> = {
  none: true,
  off: true,
  directsync: true,
  writeback: false,
  writethrough: false,
  unsafe: false,
}

/** Whether a cache mode of QEMU's reads past the page cache; undefined if it is none. */
export function isDirect(mode: string): boolean | undefined {
  return Object.hasOwn(DIRECT, mode) ? DIRECT[mode] : undefined
}
