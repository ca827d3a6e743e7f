// Lint: an import in lib/ and an include in native/ stays in its room or goes to a lower floor, and nothing
// goes in circles, types included. With --print: the plan of the house.
import { fileCircles, folderCircles } from './floors/circles.ts'
import { CPP, type House, readHouse, roomOf, type Side, TYPESCRIPT } from './floors/graph.ts'
import { planOf } from './floors/plan.ts'

const SIDES: readonly Side[] = [
  {
    folder: 'lib',
    ...TYPESCRIPT,
    floors: [
      ['text', 'units'],
      ['errors', 'log'],
      ['native', 'files', 'schema', 'progress', 'turns', 'ahead', 'page'],
      ['options'],
      ['extents', 'format', 'qmp'],
      ['nbd', 'imageio', 'image'],
      ['source', 'check'],
      ['plan', 'block-status'],
      ['compare'],
      ['qemu-img'],
      ['copy', 'edit'],
      ['backup'],
      ['maintain', 'repository', 'stream'],
      ['report', 'server'],
      ['machine'],
      ['live'],
      ['parity'],
      ['api'],
      ['index'],
      ['cli'],
    ],
  },
  {
    folder: 'native',
    ...CPP,
    floors: [
      ['base'],
      ['format', 'codec', 'io'],
      ['image', 'source'],
      ['copy'],
      ['compare'],
      ['napi'],
    ],
  },
]

/** The purpose of each room. */
const PURPOSES: Record<string, string> = {
  text: 'names as text that keeps any bytes',
  errors: 'the one family of errors, with its codes',
  units: 'sizes as people write them',
  native: 'loads the addon',
  files: 'system calls by name',
  page: 'parts of pages: safe HTML, rules of style, axes',
  schema: 'what values are valid, told by one description',
  progress: 'how far an operation is',
  ahead: 'work that is started ahead of its use',
  turns: 'lets the event loop turn in long computations',
  options: 'what arguments may be',
  extents: 'ranges of bytes with equal status',
  format: 'decodes and encodes qcow2: header, tables, bitmaps',
  qmp: 'the QEMU machine protocol',
  nbd: 'the NBD protocol: URIs, TLS, connections',
  imageio: 'the imageio HTTP protocol: URLs, tickets, trust, connections',
  image: 'opening images that exist: file, locks, gate, chain',
  source: 'a disk that can be read',
  check: "judging an image's structure",
  plan: 'what becomes of each run, and why',
  'block-status': "the status of guest bytes as QEMU's block layer has it",
  copy: 'the copy loop and its targets',
  edit: 'ordered steps into images that exist',
  compare: 'the content of two disks',
  backup: 'sessions: full, incremental, restore; manifests, verifying',
  stream: 'qcow2 images as streams: layout first, then the data in one pass',
  maintain: 'bitmaps, snapshot, commit, rebase, diff',
  repository: 'years of backups: names, records, locks, points; verify, prune, copy, repair',
  report: 'repositories and images as pages for people',
  server: 'serves disks to the clients of ovirt-imageio: tickets, HTTP',
  machine: 'what is backed up as a unit: libvirt domains, QEMU over QMP, disks at rest',
  live: 'a backup run: freeze, copy all disks, publish, record, checkpoints',
  'qemu-img': "info, check, map, compare, measure in qemu-img's words",
  parity: "our commands beside qemu-img's",
  api: 'the public functions: checks arguments, loads the rest',
  index: 'the public exports',
  cli: 'the program',
}

const NATIVE_PURPOSES: Record<string, string> = {
  base: 'errors, bytes, buffers, files, zero scan, threads',
  format: 'encodes qcow2: header, entries',
  codec: 'deflate, zstd: bytes to bytes',
  io: 'the engine: io_uring, or threads; knows no qcow2',
  image: 'the writers: where clusters go, tables, refcounts',
  source: 'NBD exports through libnbd; reads and writes that JavaScript does',
  copy: 'read, scan, compress, hash, write; limits, counters, cancel',
  compare: 'reads two disks and compares them',
  napi: 'the only room that knows of Node',
}

/** The fault of an import, if any. */
function fault(side: Side, file: string, imported: string): string | undefined {
  const from = roomOf(file)
  const to = roomOf(imported)
  if (from === to) return undefined
  const floor = (room: string): number => side.floors.findIndex((rooms) => rooms.includes(room))
  if (floor(to) < 0) return `'${imported}' is in no room of ${side.folder}/`
  if (floor(to) < floor(from)) return undefined
  return `${from} must not import from ${to}, which is not on a lower floor`
}

/** Prints each fault of a side; the number of faults. */
function check(house: House): number {
  const { side } = house
  let faults = 0
  const report = (where: string, what: string): void => {
    console.error(`${side.folder}/${where}: ${what}`)
    faults++
  }
  for (const [file, arrows] of house.arrows) {
    if (!side.floors.flat().includes(roomOf(file))) report(file, 'is in a room without a floor')
    for (const { to, line } of arrows) {
      const what = fault(side, file, to)
      if (what) report(`${file}:${line}`, what)
    }
  }
  for (const circle of [...fileCircles(house), ...folderCircles(house)]) {
    report(circle[0], `imports go in a circle: ${[...circle, circle[0]].join(' → ')}`)
  }
  return faults
}

const houses = SIDES.map((side) => readHouse('.', side))
if (process.argv[2] === '--print') {
  console.log(planOf(houses[0], PURPOSES))
  console.log(planOf(houses[1], NATIVE_PURPOSES))
} else {
  process.exitCode = houses.map(check).some((faults) => faults > 0) ? 1 : 0
}
