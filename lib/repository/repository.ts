import { BackupError, ioError } from '../errors.ts'
import { readdir, stat } from '../files.ts'
import { described, record, whole } from '../schema.ts'
import { jsonText, makeDirectory, publishText } from './files.ts'
import { type Form, readForm, TIME } from './form.ts'
import { LockedMachine } from './locked-machine.ts'
import { MachineFolder } from './machine-folder.ts'
import { MARK, machineDirectory, machineOf } from './names.ts'

/** The only format so far. */
const FORMAT = 1

/** What makes a directory a repository. */
interface Mark {
  format: 1
  /** When it was made, ISO 8601. */
  created?: string
}

export const MARK_FORM: Form<Mark> = {
  what: 'the mark of a repository',
  version: 'format',
  most: 64 * 1024,
  rule: record<Mark>(
    { format: whole(FORMAT, FORMAT) },
    { created: described(TIME, 'When the repository was made.') },
    { open: true },
  ),
}

/** A directory with backups of machines. */
export class Repository {
  /** Path. */
  readonly directory: string

  private constructor(directory: string) {
    this.directory = directory
  }

  /**
   * @throws BackupError IO if it cannot be read, BAD_RECORD if it is none, UNSUPPORTED if it is of a
   * later format
   */
  static async open(directory: string): Promise<Repository> {
    if (await isMarked(directory)) return new Repository(directory)
    // A missing directory is told as such.
    await readdir(directory).catch((error) => {
      throw ioError(directory, error)
    })
    throw new BackupError('BAD_RECORD', directory, `is no repository: it has no ${MARK}`)
  }

  /**
   * Opens one, made first where there is none. What else is in the directory stays.
   * @throws BackupError IO, BAD_RECORD, UNSUPPORTED
   */
  static async make(directory: string): Promise<Repository> {
    if (await isMarked(directory)) return new Repository(directory)
    await makeDirectory(directory)
    const mark: Mark = { format: FORMAT, created: new Date().toISOString() }
    await publishText(`${directory}/${MARK}`, jsonText(mark)).catch((error) => {
      // Another run was faster.
      if (!(error instanceof BackupError) || error.code !== 'TARGET_EXISTS') throw error
    })
    return await Repository.open(directory)
  }

  /**
   * Names of the machines that have points, in their order as texts.
   * @throws BackupError IO, BAD_RECORD, UNSUPPORTED
   */
  async machines(): Promise<string[]> {
    const machines: string[] = []
    for (const name of await this.#names()) {
      const machine = machineOf(name) ?? (await MachineFolder.nameIn(`${this.directory}/${name}`))
      if (machine !== undefined && (await this.machine(machine).hasPoints())) machines.push(machine)
    }
    return machines.sort()
  }

  /**
   * All folders that have a machine's name, whatever is in them, in the order of the machines. One whose
   * machine only its records could tell, and do not, has the name of the directory.
   * @throws BackupError IO
   */
  async folders(): Promise<MachineFolder[]> {
    const folders: MachineFolder[] = []
    for (const name of await this.#names()) {
      const directory = `${this.directory}/${name}`
      const machine =
        machineOf(name) ??
        (await MachineFolder.nameIn(directory).catch(() => undefined)) ??
        (name.includes('%-') ? name : undefined)
      if (machine === undefined || !(await isDirectory(directory))) continue
      folders.push(new MachineFolder(machine, directory))
    }
    return folders.sort((a, b) => (a.machine < b.machine ? -1 : 1))
  }

  /** A machine's folder, to be read; it may not be there. */
  machine(machine: string): MachineFolder {
    return new MachineFolder(machine, `${this.directory}/${machineDirectory(machine)}`)
  }

  /**
   * A machine's folder for a run, which no other run has at the same time. It is made where there is none.
   * @throws BackupError IN_USE, IO
   */
  async lock(machine: string): Promise<LockedMachine> {
    const { directory } = this.machine(machine)
    await makeDirectory(directory)
    return await LockedMachine.lock(machine, directory)
  }

  async #names(): Promise<string[]> {
    return await readdir(this.directory).catch((error) => {
      throw ioError(this.directory, error)
    })
  }
}

async function isDirectory(path: string): Promise<boolean> {
  return await stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  )
}

/** @throws BackupError BAD_RECORD, UNSUPPORTED, IO */
async function isMarked(directory: string): Promise<boolean> {
  return (await readForm(`${directory}/${MARK}`, MARK_FORM)) !== undefined
}
