import { checkQcow2 } from '../../check/check.ts'
import type { Say } from '../../check/finding.ts'
import { repairQcow2 } from '../../check/repair.ts'
import type { CheckResult } from '../../check/report.ts'
import { BackupError } from '../../errors.ts'
import { loadHeader } from '../../format/qcow2/qcow2-image.ts'
import type { OpenFile } from '../../image/file.ts'
import type { ImageDisk } from '../../image/steps.ts'
import type { ControlOptions } from '../../options.ts'
import { QemuImgError } from '../messages.ts'
import { closeChain, type OpenChainOptions, openChain } from '../qemu-chain.ts'
import { describeImageError } from '../strerror.ts'
import { findingToText } from './format.ts'
import type { ImageCheck } from './result.ts'

export interface CheckOptions extends OpenChainOptions, ControlOptions {
  /**
   * Repair the findings: only leaked clusters, which is always safe, or all
   * that can be. Default: nothing.
   */
  repair?: 'leaks' | 'all'
  /** Receives each finding, in QEMU's words: one line with its line feed. */
  onFinding?: (text: string) => void
  /** Called when something was repaired, before the image is checked again. */
  onRepaired?: (repaired: CheckResult) => void | Promise<void>
  /** How the image is written to; for tests. */
  disk?: (file: OpenFile) => ImageDisk
}

/** The exit status for formats in which nothing can be checked. */
const NOT_SUPPORTED = 63

/**
 * Checks a qcow2 image: its refcounts, and that all it refers to is where it can be. Content is not
 * looked at. The images below it are opened, but not checked.
 * @param name as the user gave it
 * @throws QemuImgError if it cannot be opened or read; its status is 63 for a raw image
 */
export async function checkImage(name: string, options: CheckOptions = {}): Promise<ImageCheck> {
  const { repair } = options
  const say = sayTo(options)
  if (repair === undefined) return await checkOnce(name, options)
  const chain = await openChain(name, { ...options, checking: true, writable: true })
  try {
    const [{ file, header }] = chain.images
    if (!header) throw notSupported()
    const fix = { leaks: true, errors: repair === 'all' }
    const disk = options.disk?.(file)
    const first = await concluded(() => repairQcow2(file, header, fix, say, options, disk))
    const { corruptionsFixed, leaksFixed } = first
    if (corruptionsFixed + leaksFixed === 0) return { ...first, filename: name, format: 'qcow2' }
    await options.onRepaired?.(first)
    const now = await concluded(() => checkAgain(file, say, options))
    return { ...now, corruptionsFixed, leaksFixed, filename: name, format: 'qcow2' }
  } finally {
    await closeChain(chain)
  }
}

async function checkOnce(name: string, options: CheckOptions): Promise<ImageCheck> {
  const say = sayTo(options)
  const chain = await openChain(name, { ...options, checking: true })
  try {
    const [{ file, header }] = chain.images
    if (!header) throw notSupported()
    const result = await concluded(() => checkQcow2(file, header, say, options))
    return { ...result, filename: name, format: 'qcow2' }
  } finally {
    await closeChain(chain)
  }
}

function sayTo({ onFinding }: CheckOptions): Say {
  return (finding) => onFinding?.(findingToText(finding))
}

/** Checks an image that was written to since it was opened. */
async function checkAgain(
  opened: OpenFile,
  say: Say,
  control: ControlOptions,
): Promise<CheckResult> {
  const { size } = await opened.handle.stat()
  const file = { ...opened, size: Math.max(size, opened.size) }
  const header = await loadHeader(file, { checking: true })
  return await checkQcow2(file, header, say, control)
}

/** @throws QemuImgError for a check that failed */
async function concluded<T>(check: () => Promise<T>): Promise<T> {
  try {
    return await check()
  } catch (error) {
    if (error instanceof QemuImgError || !(error instanceof BackupError)) throw error
    if (error.code === 'ABORTED') throw error
    throw new QemuImgError(`Check failed: ${describeImageError(error)}`, 1, { cause: error })
  }
}

function notSupported(): QemuImgError {
  return new QemuImgError('This image format does not support checks', NOT_SUPPORTED, {
    code: 'UNSUPPORTED',
  })
}
