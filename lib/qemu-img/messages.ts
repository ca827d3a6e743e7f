/**
 * What qemu-img's messages begin with. The commands that do what qemu-img does begin theirs so, too,
 * for what they print is what it prints.
 */
const PROGRAM = 'qemu-img'

/** Ends a command with what qemu-img would print, and its exit status. */
export class QemuImgError extends Error {
  override readonly name = 'QemuImgError'
  /** The exit status. */
  readonly status: number

  /** @param message in qemu-img's words, without its name in front */
  constructor(message: string, status = 1, options?: ErrorOptions) {
    super(message, options)
    this.status = status
  }
}

/** A wrong use of a command, after which qemu-img points to its help. */
export class QemuImgUsageError extends QemuImgError {}

/** A message as it is printed, with its line feed. */
export function errorLine(message: string): string {
  return `${PROGRAM}: ${message}\n`
}

/** A warning as it is printed, with its line feed. */
export function warningLine(message: string): string {
  return errorLine(`warning: ${message}`)
}

/** All that is printed of an error. */
export function errorText(error: QemuImgError): string {
  const help =
    error instanceof QemuImgUsageError ? `Try '${PROGRAM} --help' for more information\n` : ''
  return errorLine(error.message) + help
}
