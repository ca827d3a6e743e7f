/** Sound images to be damaged, each in a directory with what it builds on and what it must not read. */
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { randomNumbers } from '../support/changes.ts'
import { sizeOf } from '../support/patch.ts'
import { randomImage } from '../support/random-image.ts'

/** Larger images are not used: a case is to take milliseconds. */
const MOST = 2 ** 20

/** An image of the corpus. */
export interface Sample {
  directory: string
  /** The image, and all images of its directory by their names. */
  image: string
  files: Record<string, Buffer>
}

/**
 * Makes images.
 * @param seed of the first; the same for the same seed
 */
export async function makeCorpus(directory: string, count: number, seed: number): Promise<void> {
  mkdirSync(join(directory, 'outside'), { recursive: true })
  writeFileSync(join(directory, 'outside', 'secret'), 'not to be read'.padEnd(65536))
  for (let made = 0; made < count; seed++) {
    const home = join(directory, String(seed))
    mkdirSync(home)
    const { path, format } = await randomImage(home, randomNumbers(seed))
    const sizes = readdirSync(home).map((name) => sizeOf(join(home, name)))
    if (format !== 'qcow2' || Math.max(...sizes) > MOST) {
      rmSync(home, { recursive: true })
      continue
    }
    copyFileSync(path, join(home, 'pristine.img'))
    writeFileSync(join(home, 'image'), basename(path))
    writeFileSync(join(home, 'sound.raw'), Buffer.alloc(65536, 7))
    symlinkSync('../outside/secret', join(home, 'link'))
    // Whoever opens it to read waits for ever.
    execFileSync('mkfifo', [join(home, 'fifo')])
    made++
  }
}

/** The images made by `makeCorpus`. */
export function readCorpus(directory: string): Sample[] {
  return readdirSync(directory).flatMap((name) => {
    const home = join(directory, name)
    const names = readdirSync(home)
    if (!names.includes('image')) return []
    const files = names.filter((file) => /^\d.*\.img$/.test(file) || file === 'sound.raw')
    return {
      directory: home,
      image: readFileSync(join(home, 'image'), 'utf8'),
      files: Object.fromEntries(files.map((file) => [file, readFileSync(join(home, file))])),
    }
  })
}
