import { BackupError } from '../errors.ts'

/** A QMP command that QEMU answered with an error. `what` is the command, `why` QEMU's description. */
export class QmpError extends BackupError {
  /** QEMU's class of the error: `GenericError`, `CommandNotFound`, `DeviceNotFound` … */
  readonly qmpClass: string
  /** The command's name. */
  readonly command: string

  constructor(command: string, qmpClass: string, description: string) {
    super('IO', command, description)
    this.command = command
    this.qmpClass = qmpClass
  }
}
