/** The QEMUs that `scripts/newer-qemu` brought into .qemu, and the tests that they judge too. */
import { existsSync, readdirSync } from 'node:fs'
import { resolve } from 'node:path'

/** A test file, and the QEMU that it is run with. */
export interface Run {
  file: string
  /** The folder of a newer one. Default: the installed one. */
  qemu?: string
}

const FOLDER = '.qemu'

/** Files of tests whose judge is QEMU, by their names below test/. */
export const QUICK = ['qemu-img/arguments', 'qemu-img/bitmap', 'qemu-img/campaign-1']
/** With THOROUGH=1 also these: QEMU reads our images, or we read QEMU's. */
export const THOROUGH = [
  'qemu-img/commands',
  'qemu-img/rebase',
  'qemu-img/campaign-2',
  'maintain/edit-bitmap',
  'maintain/commit',
  'maintain/stale-bitmaps',
  'maintain/diff-nbd',
  'source/nbd-source',
  'source/nbd-bitmap',
  'backup/nbd-chain',
  'backup/restore-nbd',
  'machine/qmp/rounds',
  'machine/qmp/devices',
  'machine/qmp/chains',
  'machine/qmp/killed',
  'machine/qmp/lost',
  'live/rounds',
]

/** The folders that are there, each complete. */
export function newerQemus(folder = FOLDER): string[] {
  if (!existsSync(folder)) return []
  // The others are being made.
  const names = readdirSync(folder).filter((name) => !name.includes('.new.'))
  for (const name of names) {
    // It is written last.
    if (existsSync(`${folder}/${name}/holds`)) continue
    throw new Error(`${folder}/${name} is not what scripts/newer-qemu makes; remove it`)
  }
  return names.sort().map((name) => `${folder}/${name}`)
}

/**
 * The runs of test files with each of these QEMUs.
 * @param files all that run with the installed one
 */
export function newerRuns(
  files: readonly string[],
  qemus: readonly string[],
  thorough: boolean,
): Run[] {
  const judged = thorough ? [...QUICK, ...THOROUGH] : QUICK
  const again = files.filter((file) => judged.some((name) => file.endsWith(`/${name}.test.js`)))
  return qemus.flatMap((qemu) => again.map((file) => ({ file, qemu })))
}

/** The environment in which every test, and all that it starts, finds that QEMU's tools first. */
export function environmentOf({ qemu }: Run, thorough: boolean): NodeJS.ProcessEnv {
  if (qemu === undefined) return {}
  // Of the campaign a part will do: the installed QEMU has judged the same images.
  const { PATH, IMAGES = thorough ? '50' : '5' } = process.env
  return { PATH: `${resolve(qemu)}/bin:${PATH}`, IMAGES }
}
