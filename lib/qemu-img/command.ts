/** Where a command prints. */
export interface CommandIo {
  /** Resolves when it is taken, so that a slow reader bounds the memory used. */
  stdout(text: string): Promise<void>
  stderr(text: string): void
  /** Ends the command. */
  readonly signal?: AbortSignal
  /** Whether stderr can show a bar that is drawn again and again. Default: no. */
  readonly canDraw?: boolean
  /** Columns of that terminal. */
  readonly columns?: number
}

/** A command that mirrors the qemu-img command of its name. */
export interface QemuImgCommand {
  /** The text of `--help`. */
  readonly help: string
  /**
   * @param argv the arguments after the command's name
   * @returns the exit status
   * @throws QemuImgError, with qemu-img's message; HelpRequest for `--help`
   */
  run(argv: readonly string[], io: CommandIo): Promise<number>
}
