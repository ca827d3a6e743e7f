/** What is done with a damaged image, in this process as the program does it. */
import { readdirSync } from 'node:fs'
import { OutputClosed } from '../../lib/cli/print.ts'
import { isQemuImgCommand, runQemuImg } from '../../lib/cli/qemu-img.ts'
import { BackupError } from '../../lib/errors.ts'
import { readBitmapChain } from '../../lib/maintain/chain-report.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { encodeText } from '../../lib/text.ts'

/**
 * Command lines on an image that is not changed by them.
 * @param other the image it was made from
 * @param strict of two ways that cost much, one
 */
export function readings(image: string, other: string, strict: boolean): string[][] {
  return [
    ['info', image],
    ['info', '-f', 'qcow2', '--backing-chain', '--output=json', image],
    ['check', '-f', 'qcow2', image],
    ['map', '-f', 'qcow2', image],
    ['map', '-f', 'qcow2', '--output=json', image],
    ['compare', ...(strict ? ['-s'] : []), '-f', 'qcow2', '-F', 'qcow2', image, other],
    ['measure', '-f', 'qcow2', '-O', 'qcow2', image],
    ['measure', '-f', 'qcow2', '-O', 'raw', '--output=json', image],
    ['extents', '-f', 'qcow2', image],
    ['bitmap', 'list', image],
    ['chain', '-f', 'qcow2', image],
  ]
}

/** The command line of a repair, which changes the image. */
export function repair(image: string, all: boolean): string[] {
  return ['check', '-f', 'qcow2', '-r', all ? 'all' : 'leaks', image]
}

/** The command line of an edit, of an image that is sound. */
export function edit(image: string): string[] {
  return ['bitmap', '--add', image, 'new']
}

/** Whoever reads the output has had enough after so many characters. */
const MOST_OUTPUT = 2 ** 20
const MOST_EXTENTS = 100_000

/**
 * Runs a command as the program does, and lets pass every error that is one line of it.
 * @throws whatever the program did not foresee
 */
export async function runCommand([name, ...args]: readonly string[]): Promise<void> {
  const before = openFiles()
  try {
    if (isQemuImgCommand(name)) await runQemuImg(name, args, boundedOutput())
    else if (name === 'chain') await readBitmapChain(args.at(-1) as string, { format: 'qcow2' })
    else await readExtents(args.at(-1) as string)
  } catch (error) {
    if (!(error instanceof BackupError || error instanceof OutputClosed)) throw error
  }
  const left = openFiles() - before
  if (left !== 0) throw new Error(`${left} files are left open`)
}

function boundedOutput() {
  let length = 0
  return {
    async stdout(text: string) {
      length += encodeText(text).length
      if (length > MOST_OUTPUT) throw new OutputClosed()
    },
    stderr(text: string) {
      encodeText(text)
    },
  }
}

async function readExtents(path: string): Promise<void> {
  const source = await openSource(path, { format: 'qcow2' })
  try {
    let count = 0
    for await (const _ of source.extents()) if (++count === MOST_EXTENTS) break
  } finally {
    await source.close()
  }
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}
