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

/** A command that does what the one of qemu-img does that has its name. */
export interface QemuImgCommand {
  /** What `--help` prints. */
  readonly help: string
  /**
   * @param argv what stands behind the command's name
   * @returns the exit status
   * @throws QemuImgError, with what qemu-img would print; HelpRequest for `--help`
   */
  run(argv: readonly string[], io: CommandIo): Promise<number>
}
