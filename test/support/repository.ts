/** A machine of disks at rest that is backed up into a repository, and what is looked at afterwards. */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { firstDifference } from './disks.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuIo } from './qemu.ts'

/** A record, as far as tests look at it. */
export interface Recorded {
  point: string
  id: string
  parent?: string
  parentId?: string
  disks: {
    name: string
    image: string
    kind: string
    reason?: string
    parent?: string
    bitmap?: { name: string }
  }[]
}

/** A machine `web` with a qcow2 and a raw disk, below a directory of its own. */
export class RestingMachine {
  readonly directory: string
  readonly repository: string
  readonly qcow2: string
  readonly raw: string
  readonly machine: string
  readonly #t: Test

  constructor(t: Test, directory = t.testdir(), size = '16M') {
    this.#t = t
    this.directory = directory
    this.repository = join(this.directory, 'repo')
    this.qcow2 = join(this.directory, 'a.qcow2')
    this.raw = join(this.directory, 'b.raw')
    qemuImg('create', '-q', '-f', 'qcow2', this.qcow2, size)
    qemuImg('create', '-q', '-f', 'raw', this.raw, '1M')
    this.machine = `disk:vda=${this.qcow2},vdb=${this.raw}`
  }

  /** Arguments of the command line that back it up. */
  get args(): string[] {
    return ['backup', this.machine, '--name', 'web', '--repo', this.repository]
  }

  /** Where its points are. */
  get folder(): string {
    return join(this.repository, 'web')
  }

  /** The guest writes somewhere, something that depends on the number. */
  write(number: number): void {
    const at = ((number * 7) % 15) * 2 ** 20 + (number % 16) * 65536
    qemuIo({ path: this.qcow2, format: 'qcow2' }, `write -q -P ${(number % 255) + 1} ${at} 70000`)
    qemuIo({ path: this.raw, format: 'raw' }, `write -q -P ${(number % 255) + 1} 4k 4k`)
  }

  /** The content of the disks as they are. */
  contents(): Buffer[] {
    const copy = join(this.directory, 'copy.raw')
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', this.qcow2, copy)
    return [readFileSync(copy), readFileSync(this.raw)]
  }

  /** Names of the bitmaps of its qcow2 disk. */
  bitmaps(): string[] {
    const { data } = qemuImgInfo(this.qcow2)['format-specific'] as {
      data: { bitmaps?: { name: string }[] }
    }
    return (data.bitmaps ?? []).map(({ name }) => name)
  }

  /** Oldest first, by their names. */
  records(): Recorded[] {
    const names = readdirSync(this.folder).filter((name) => /^[^.].*\.json$/.test(name))
    return names.sort().map((name) => JSON.parse(readFileSync(join(this.folder, name), 'utf8')))
  }

  /** What QEMU's tools read from the images of a point equals a saved content. */
  compare(point: string, contents: readonly Buffer[], when = point): void {
    const copy = join(this.directory, 'restored.raw')
    for (const [i, disk] of ['vda', 'vdb'].entries()) {
      const image = join(this.folder, `${disk}.${point}.qcow2`)
      qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, copy)
      this.#t.equal(firstDifference(copy, contents[i]), undefined, `${when}: ${disk} as it was`)
    }
    rmSync(copy)
  }

  /** Nothing is there but what records name, all of it is sound, and the last one's bitmap goes on. */
  requireTidy(when: string, points = this.records()): void {
    const t = this.#t
    const named = points.flatMap(({ point, disks }) => [
      `${point}.json`,
      ...disks.map(({ image }) => image),
    ])
    t.strictSame(readdirSync(this.folder).sort(), ['.lock', ...named].sort(), `${when}: files`)
    const [last] = points.slice(-1)
    t.strictSame(this.bitmaps(), [last.point], `${when}: bitmaps`)
    for (const { image } of last.disks) {
      t.equal(qemuImgCheck(join(this.folder, image)).status, 0, `${when}: ${image} is sound`)
    }
    // An edit that was killed may have leaked clusters, 3.
    t.ok([0, 3].includes(qemuImgCheck(this.qcow2).status ?? 1), `${when}: the disk is sound`)
  }
}
