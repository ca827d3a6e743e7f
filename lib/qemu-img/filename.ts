/** Names of files as QEMU's block layer has them. Pure. */

/** Whether a name begins with a protocol, as `nbd:` is. */
export function hasProtocol(name: string): boolean {
  return /^[^/:]*:/.test(name)
}

/**
 * The full name of a file that an image names: relative to the directory of the image.
 * @param name as in the image
 * @param image the name by which the image was opened
 */
export function fullName(name: string, image: string): string {
  if (name === '' || name.startsWith('/') || hasProtocol(name)) return name
  return image.slice(0, image.lastIndexOf('/') + 1) + name
}
