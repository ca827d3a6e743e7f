import { parseNumber, parseSize } from '../sizes.ts'
import type { QemuVersion } from '../version.ts'
import { flag, OptionError } from './create-options.ts'
import type { Qcow2Layout } from './layout.ts'

/** The options that determine the size of a qcow2 image. */
export interface Qcow2Options {
  version: 2 | 3
  layout: Qcow2Layout
  /** All data is stored, whatever it is. */
  preallocated: boolean
  /** The image gets a backing file; how much it shares with the source is unknown. */
  backing: boolean
  /** The size given among the options, bytes; 0: none. */
  declared: bigint
}

const PREALLOCATION = ['off', 'metadata', 'falloc', 'full']

/**
 * Reads the parsed `-o`, in QEMU's order, since the first mistake is reported.
 * @throws OptionError
 */
export function qcow2Options(
  options: ReadonlyMap<string, string>,
  qemu: QemuVersion,
): Qcow2Options {
  const extendedL2 = flag(options.get('extended_l2') ?? 'off') === true
  const clusterSize = parseSize(options.get('cluster_size') ?? '64K', qemu) as bigint
  requireClusterSize(clusterSize, extendedL2)
  const compat = options.get('compat') ?? '1.1'
  if (compat !== '0.10' && compat !== '1.1') {
    throw new OptionError(`Invalid compatibility level: '${compat}'`)
  }
  const version = compat === '0.10' ? 2 : 3
  const refcountBits = parseNumber(options.get('refcount_bits') ?? '16') as bigint
  requireRefcountBits(refcountBits, version)
  const preallocation = options.get('preallocation') ?? 'off'
  if (!PREALLOCATION.includes(preallocation)) {
    throw new OptionError(`invalid parameter value: ${preallocation}`)
  }
  if (options.get('encrypt.format') === 'luks') requireSecret(options.get('encrypt.key-secret'))
  return {
    version,
    layout: { clusterSize, extendedL2, refcountBits },
    preallocated: preallocation === 'falloc' || preallocation === 'full',
    backing: options.has('backing_file'),
    declared: parseSize(options.get('size') ?? '0', qemu) as bigint,
  }
}

function isPowerOfTwo(n: bigint): boolean {
  return n > 0n && (n & (n - 1n)) === 0n
}

function requireClusterSize(size: bigint, extendedL2: boolean): void {
  if (!isPowerOfTwo(size) || size < 512n || size > 2n ** 21n) {
    throw new OptionError('Cluster size must be a power of two between 512 and 2048k')
  }
  if (extendedL2 && size < 16384n) {
    throw new OptionError(
      'Extended L2 entries are only supported with cluster sizes of at least 16384 bytes',
    )
  }
}

function requireRefcountBits(bits: bigint, version: number): void {
  if (!isPowerOfTwo(bits) || bits > 64n) {
    throw new OptionError('Refcount width must be a power of two and may not exceed 64 bits')
  }
  if (version < 3 && bits !== 16n) {
    throw new OptionError(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
        '(use compat=1.1 or greater)',
    )
  }
}

/** A secret would be made by `--object`, which is refused, so there is none. */
function requireSecret(id: string | undefined): never {
  if (id === undefined) {
    throw new OptionError("Parameter 'encrypt.key-secret' is required for cipher")
  }
  throw new OptionError(`No secret with id '${id}'`)
}
