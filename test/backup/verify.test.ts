import { execFileSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runSession } from '../../lib/backup/session.ts'
import { openTarget, type SourceIdentity } from '../../lib/copy/target/open-target.ts'
import {
  type FullOptions,
  fullBackup,
  incrementalBackup,
  type Manifest,
  type ManifestVerdict,
  type Progress,
  verifyManifests,
} from '../../lib/index.ts'
import { makeRaw, noise, type Part, prose } from '../support/disks.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

t.setTimeout(1_800_000)

const KIB = 2 ** 10
const MIB = 2 ** 20
const BLOCK = 4 * MIB
const SIZE = 3 * BLOCK + 512

/** A block of data with zeroes within, one of zeroes, one with little, and a short one. */
const PARTS: Part[] = [
  { at: 0, bytes: prose(MIB) },
  { at: 2 * MIB + 512, bytes: noise(MIB) },
  { at: 2 * BLOCK + 70_000, bytes: noise(1000, 2) },
  { at: 3 * BLOCK, bytes: noise(512, 3) },
]

/** The hash of the hashes of a disk's blocks, by another program. */
function checksumOf(disk: string): string {
  const bytes = readFileSync(disk)
  const digests: Buffer[] = []
  for (let at = 0; at < bytes.length; at += BLOCK) {
    digests.push(Buffer.from(b2sum(bytes.subarray(at, at + BLOCK)), 'hex'))
  }
  return b2sum(Buffer.concat(digests))
}

function b2sum(input: Buffer): string {
  return execFileSync('b2sum', ['-l', '256'], { input }).toString().slice(0, 64)
}

async function all<T>(found: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const one of found) list.push(one)
  return list
}

/** Whether an image is what its manifest says, and what is wrong if it is not. */
async function held(image: string): Promise<[boolean, string | undefined]> {
  const { same, difference } = await verified(image)
  return [same, difference]
}

async function verified(image: string): Promise<ManifestVerdict> {
  const [one] = await all(verifyManifests([image], { requireManifest: true }))
  return one
}

function readManifest(image: string): Manifest {
  return JSON.parse(readFileSync(`${image}.manifest.json`, 'utf8'))
}

/** Changes one byte of a file. */
function flip(path: string, at: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, at)
  byte[0] ^= 1
  writeSync(fd, byte, 0, 1, at)
  closeSync(fd)
}

/** Where a guest byte is in an image that is not compressed. */
function placeOf(image: string, guest: number): number {
  const map = JSON.parse(qemuImg('map', '--output=json', image))
  const { start, offset } = map.find(
    (entry: { start: number; length: number }) => guest < entry.start + entry.length,
  )
  return offset + guest - start
}

t.test('the checksum is that of the disk, however the image is made', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const checksum = checksumOf(disk)
  const ways: FullOptions[] = [
    {},
    { clusterSize: 512 },
    { clusterSize: 2 * MIB },
    { compress: 'zlib' },
    { compress: 'zstd', clusterSize: 4 * KIB },
    { engine: 'threads', direct: 'off', requests: 1 },
  ]
  for (const [i, options] of ways.entries()) {
    const image = join(t.testdirName, `${i}.qcow2`)
    const told = JSON.stringify(options)
    const result = await fullBackup(disk, image, { ...options, verify: true, manifest: true })
    t.strictSame(result.content, { algorithm: 'blake2b-256', blockSize: BLOCK, checksum }, told)
    t.equal(result.verified, true)
    t.equal(result.manifest, `${image}.manifest.json`)
    t.strictSame(await held(image), [true, undefined], told)
    t.equal(qemuImg('compare', '-f', 'raw', disk, image), 'Images are identical.\n')
  }
})

t.test('without the options nothing is hashed or told', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const result = await fullBackup(disk, join(t.testdirName, 'image'))
  for (const key of ['content', 'verified', 'manifest', 'checksum']) t.notOk(key in result, key)
  t.strictSame(readdirSync(t.testdirName).sort(), ['disk.raw', 'image'])
})

t.test('--verify alone leaves no manifest, --manifest alone does not read back', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const phases = new Set<string>()
  const onProgress = ({ phase }: Progress) => phases.add(phase)
  const verified = await fullBackup(disk, join(t.testdirName, 'a'), { verify: true, onProgress })
  t.strictSame([...phases], ['copy', 'verify'])
  t.equal(verified.manifest, undefined)
  phases.clear()
  const told = await fullBackup(disk, join(t.testdirName, 'b'), { manifest: true, onProgress })
  t.strictSame([...phases], ['copy'])
  t.equal(told.verified, undefined)
  t.strictSame(told.content, verified.content)
  t.strictSame(readdirSync(t.testdirName).sort(), ['a', 'b', 'b.manifest.json', 'disk.raw'])
})

t.test('an empty disk, and one of nothing but zeroes, are verified', async (t) => {
  t.testdir()
  for (const size of [0, 512, BLOCK, 5 * BLOCK + 512]) {
    const disk = makeRaw(join(t.testdirName, `${size}.raw`), size, [])
    const image = join(t.testdirName, `${size}.qcow2`)
    const { content } = await fullBackup(disk, image, { verify: true, manifest: true })
    t.equal(content!.checksum, checksumOf(disk), `${size}`)
    t.strictSame(await held(image), [true, undefined])
  }
})

/** A disk with a chain of backups: a full one, and one of each kind of change. */
async function makeChain(t: Test): Promise<string[]> {
  const at = (name: string) => join(t.testdirName, name)
  qemuImg('create', '-q', '-f', 'qcow2', at('disk'), '64M')
  qemuIo(at('disk'), 'write -P 1 0 10M', 'write -P 2 30M 4M')
  const options = { verify: true, manifest: true }
  await fullBackup(at('disk'), at('full'), options)
  qemuImg('bitmap', '--add', at('disk'), 'b0')
  qemuIo(at('disk'), 'write -P 3 1M 70k', 'write -z 2M 9M', 'discard 30M 1M', 'write -P 4 63M 1M')
  await incrementalBackup(at('disk'), at('one'), { bitmap: 'b0', backing: at('full'), ...options })
  qemuImg('bitmap', '--remove', at('disk'), 'b0')
  qemuImg('bitmap', '--add', at('disk'), 'b1')
  qemuImg('resize', '-q', at('disk'), '70M')
  qemuIo(at('disk'), 'write -P 5 40M 64k')
  const more = { clusterSize: 4 * KIB, compress: 'zstd', ...options } as const
  await incrementalBackup(at('disk'), at('two'), { bitmap: 'b1', backing: at('one'), ...more })
  return ['full', 'one', 'two'].map(at)
}

t.test('a chain: each image is held against its own manifest', async (t) => {
  t.testdir()
  const chain = await makeChain(t)
  const found = await all(verifyManifests(chain))
  t.strictSame(
    found.map(({ image, same }) => [image, same]),
    chain.map((image) => [image, true]),
  )
  t.equal(readManifest(chain[1]).backingFile, 'full')
  t.equal(readManifest(chain[0]).backingFile, undefined)
  t.equal(readManifest(chain[2]).virtualSize, 70 * MIB)
  t.ok(readManifest(chain[1]).unchangedBytes > 0)

  // Without what is below it, for its own content is all that counts.
  t.strictSame(await held(chain[2]), [true, undefined])
  t.equal(qemuImg('compare', chain[2], join(t.testdirName, 'disk')), 'Images are identical.\n')
})

t.test('every kind of damage to an increment is noticed', async (t) => {
  t.testdir()
  const [, one] = await makeChain(t)
  const whole = readFileSync(one)
  const damages: [string, () => void][] = [
    ['a byte of data', () => flip(one, placeOf(one, MIB + 5))],
    ['data becomes zero', () => qemuIo(one, 'write -z 1M 64k')],
    ['zero becomes data of zeroes', () => qemuIo(one, 'write -P 7 3M 64k', 'write -P 1 3M 64k')],
    ['something new', () => qemuIo(one, 'write -P 1 20M 64k')],
    ['a zero cluster that is not there', () => qemuIo(one, 'write -z 20M 64k')],
  ]
  for (const [name, damage] of damages) {
    writeFileSync(one, whole)
    damage()
    const [same, difference] = await held(one)
    t.equal(same, false, name)
    t.match(
      difference,
      /one: does not match the data that was read: its checksum is \w{64}, not \w{64}$/,
    )
  }
  writeFileSync(one, whole)
  qemuImg('resize', '-q', one, '80M')
  t.strictSame(await held(one), [false, `${one}: holds a disk of 80 MiB, not 64 MiB`])

  // The refcount of the first cluster.
  writeFileSync(one, whole)
  const blocks = Number(whole.readBigUInt64BE(Number(whole.readBigUInt64BE(48))))
  flip(one, blocks + 1)
  t.match((await held(one))[1], /one: is not sound: ERROR cluster 0 refcount=/)

  // What changes nothing of the content.
  writeFileSync(one, whole)
  qemuImg('bitmap', '--add', one, 'b')
  t.strictSame(await held(one), [true, undefined])

  // What it builds on is recorded too.
  qemuImg('rebase', '-u', '-b', 'elsewhere', '-F', 'qcow2', one)
  t.match((await held(one))[1], /has the backing file 'elsewhere', not 'full' as recorded/)
})

t.test('an image that was not written as it was read never appears', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const image = join(t.testdirName, 'image')
  const good = join(t.testdirName, 'good')
  await fullBackup(disk, good)
  /** Opens a target whose bytes change while they are synced. */
  const bad = (at: number) => {
    return async (sources: readonly SourceIdentity[]) => {
      const target = await openTarget(image, { sources })
      const handle = target.handle!
      const sync = handle.sync.bind(handle)
      handle.sync = async () => {
        await handle.write(Buffer.from([0x99]), 0, 1, at)
        await sync()
      }
      return target
    }
  }
  const verify = { verify: true, manifest: true, direct: 'off' } as const
  const cases: [number, { code: string; what?: string }][] = [
    [placeOf(good, 2 * MIB + 600), { code: 'DIFFERENT', what: image }],
    [placeOf(good, SIZE - 1), { code: 'DIFFERENT' }],
    // The first entry of the L1 table.
    [Number(readFileSync(good).readBigUInt64BE(40)) + 6, { code: 'BAD_IMAGE' }],
  ]
  for (const [at, error] of cases) {
    const request = { from: disk, to: image, format: 'qcow2', replaces: 'image' } as const
    const copied = runSession({ ...request, options: verify, openTarget: bad(at) })
    await t.rejects(copied, error)
  }
  t.strictSame(readdirSync(t.testdirName).sort(), ['disk.raw', 'good'])
})

t.test('stopped while it reads back, nothing is left', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), 64 * MIB, [{ at: 0, bytes: noise(64 * MIB) }])
  const image = join(t.testdirName, 'image')
  const stop = new AbortController()
  const onProgress = ({ phase }: Progress) => {
    if (phase === 'verify') stop.abort()
  }
  const options = { verify: true, manifest: true, signal: stop.signal, onProgress }
  // The last report may come after the last byte.
  const result = await fullBackup(disk, image, options).catch((error) => error.code)
  if (result === 'ABORTED') t.notOk(existsSync(image) || existsSync(`${image}.manifest.json`))
  else t.equal(result.verified, true)
})

t.test('a manifest that is in the way, or cannot be made', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const image = join(t.testdirName, 'image')
  writeFileSync(`${image}.manifest.json`, 'precious')
  const kept = { code: 'TARGET_EXISTS', what: `${image}.manifest.json` }
  await t.rejects(fullBackup(disk, image, { manifest: true }), kept)
  t.notOk(existsSync(image))
  t.equal(readFileSync(`${image}.manifest.json`, 'utf8'), 'precious')
  await fullBackup(disk, image, { manifest: true, force: true })
  t.strictSame(await held(image), [true, undefined])
})

t.test('a file that is not a manifest is refused', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const image = join(t.testdirName, 'image')
  await fullBackup(disk, image)
  const path = `${image}.manifest.json`
  t.match(await verified(image), {
    same: false,
    code: 'BAD_MANIFEST',
    difference: `${image}: has no manifest, ${path}; backups made with --manifest have one`,
  })
  const [without] = await all(verifyManifests([image]))
  t.match(without, { same: true, notes: [/has no manifest; its structure is sound/] })
  const sound = {
    version: 1,
    virtualSize: SIZE,
    content: { algorithm: 'blake2b-256', blockSize: BLOCK, checksum: '0'.repeat(64) },
  }
  const bad: [unknown, string][] = [
    ['', 'BAD_MANIFEST'],
    ['{', 'BAD_MANIFEST'],
    ['null', 'BAD_MANIFEST'],
    ['[1]', 'BAD_MANIFEST'],
    [' '.repeat(2 ** 20), 'BAD_MANIFEST'],
    [{ ...sound, virtualSize: '1' }, 'BAD_MANIFEST'],
    [{ ...sound, content: { ...sound.content, checksum: 'x' } }, 'BAD_MANIFEST'],
    [{ ...sound, content: { ...sound.content, blockSize: 1 } }, 'BAD_MANIFEST'],
    [{ ...sound, version: 2 }, 'UNSUPPORTED'],
  ]
  for (const [manifest, code] of bad) {
    writeFileSync(path, typeof manifest === 'string' ? manifest : JSON.stringify(manifest))
    t.match(await verified(image), { same: false, code }, String(manifest).slice(0, 20))
  }
  writeFileSync(path, JSON.stringify(sound))
  t.equal((await held(image))[0], false, 'another checksum')
})

t.test('images that cannot be held against a manifest', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, PARTS)
  const at = (name: string) => join(t.testdirName, name)
  await fullBackup(disk, at('image'), { manifest: true })
  const manifest = readFileSync(at('image.manifest.json'))
  writeFileSync(at('disk.raw.manifest.json'), manifest)
  t.equal((await held(disk))[0], false, 'raw')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${at('data')}`, at('split'), String(SIZE))
  writeFileSync(at('split.manifest.json'), manifest)
  t.match(await verified(at('split')), { same: false, code: 'UNSUPPORTED' }, 'a data file')
  writeFileSync(at('gone.manifest.json'), manifest)
  t.match(await verified(at('gone')), { same: false, code: 'IO' }, 'gone')
})
