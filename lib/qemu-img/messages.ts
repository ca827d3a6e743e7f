import { BackupError, type ErrorCode, isBackupError, setHeading } from '../errors.ts'

/**
 * Prefix of qemu-img's messages. The commands that mirror qemu-img's use it, too,
 * since their output is the same.
 */
const PROGRAM = 'qemu-img'

/** Further fields of a QemuImgError. */
export interface QemuImgErrorOptions extends ErrorOptions {
  /** Default: that of the failure that caused it, else BAD_IMAGE. */
  code?: ErrorCode
}

/**
 * A failure in qemu-img's words: `message` is qemu-img's message after its name, and `status` its
 * exit status. The other fields are those of the failure that caused it, where there is one.
 */
export class QemuImgError extends BackupError {
  /** The exit status of qemu-img. */
  readonly status: number

  /** @param message in qemu-img's words, without its name in front */
  constructor(message: string, status = 1, { cause, code }: QemuImgErrorOptions = {}) {
    const reason = reasonOf(cause)
    super(code ?? reason?.code ?? 'BAD_IMAGE', reason?.what ?? 'qemu-img', reason?.why ?? message, {
      cause,
      errno: reason?.errno,
      hint: reason?.hint,
      hintValue: reason?.hintValue,
    })
    this.message = message
    this.status = status
    setHeading(this)
  }
}

/** The original failure behind an error in QEMU's words. */
export function reasonOf(error: unknown): BackupError | undefined {
  let cause = error
  while (cause instanceof Error) {
    if (isBackupError(cause) && !(cause instanceof QemuImgError)) return cause
    cause = cause.cause
  }
  return undefined
}

/** A wrong use of a command, after which qemu-img points to its help. */
export class QemuImgUsageError extends QemuImgError {
  /** Prefix of the message. */
  readonly program: string
  /** The line that follows it. */
  readonly help: string

  constructor(
    message: string,
    { program = PROGRAM, help = `Try '${PROGRAM} --help' for more information` } = {},
  ) {
    super(message, 1, { code: 'USAGE' })
    this.program = program
    this.help = help
  }
}

/** A message as it is printed, with its line feed. */
export function errorLine(message: string): string {
  return `${PROGRAM}: ${message}\n`
}

/** A warning as it is printed, with its line feed. */
export function warningLine(message: string): string {
  return errorLine(`warning: ${message}`)
}

/**
 * All that is printed of an error.
 * @param remedy to follow the message
 */
export function errorText(error: QemuImgError, remedy = ''): string {
  const text = error.message + remedy
  return error instanceof QemuImgUsageError
    ? `${error.program}: ${text}\n${error.help}\n`
    : errorLine(text)
}
