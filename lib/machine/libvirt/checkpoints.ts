import { ownerIn } from './owner.ts'
import { documentPath, type Virsh, VirshError, type VirshOptions } from './virsh.ts'
import { childrenOf, elementAt, escapeXml, parseXml, textAt } from './xml.ts'

/** A checkpoint of a domain: bitmaps that began at one instant, one for each of some disks. */
export interface Checkpoint {
  name: string
  description: string
  /** Its disks. */
  disks: CheckpointDisk[]
  /** We made it. */
  isOurs: boolean
  /** The mark of the run whose backup was not stored yet. */
  unfinished?: string
}

export interface CheckpointDisk {
  name: string
  /** Bytes written since; only known of an active domain. */
  dirtyBytes?: number
  /** Of an active domain: its bitmap is missing or cannot be trusted. */
  isBroken: boolean
}

/** By libvirt's schema. */
export const CHECKPOINT_NAME = /^[a-zA-Z0-9_-][a-zA-Z0-9_.-]*$/

const OURS = 'Backup by qcow2-backup'

/** What a checkpoint's description says until its backup is stored. */
export function unfinishedDescription(mark: string): string {
  return `${OURS}, not stored yet: ${mark}`
}

/** All checkpoints of a domain, oldest first. */
export async function listCheckpoints(
  virsh: Virsh,
  uuid: string,
  isActive: boolean,
  signal?: AbortSignal,
): Promise<Checkpoint[]> {
  const list = ['checkpoint-list', `--domain=${uuid}`, '--name', '--topological']
  const names = (await virsh.run(list, { signal })).split('\n').filter((name) => name !== '')
  const found: Checkpoint[] = []
  for (const name of names) {
    const checkpoint = await readCheckpoint(virsh, uuid, name, isActive, signal)
    // Somebody else may delete one meanwhile.
    if (checkpoint) found.push(checkpoint)
  }
  return found
}

/** @returns undefined if there is none of that name */
export async function readCheckpoint(
  virsh: Virsh,
  uuid: string,
  name: string,
  isActive: boolean,
  signal?: AbortSignal,
): Promise<Checkpoint | undefined> {
  const text = await dump(virsh, uuid, name, isActive ? ['--size'] : [], { signal })
  if (text === undefined) return undefined
  const xml = await parseXml(text, `${virsh.title}: virsh checkpoint-dumpxml`)
  const description = textAt(xml, 'description') ?? ''
  const disks = childrenOf(elementAt(xml, 'disks'), 'disk').filter(
    (disk) => disk.attributes.get('checkpoint') === 'bitmap',
  )
  return {
    name,
    description,
    isOurs: description.startsWith(OURS),
    unfinished: description.includes('not stored yet') ? ownerIn(description)?.mark : undefined,
    disks: disks.map(({ attributes }) => {
      const size = attributes.get('size')
      return {
        name: attributes.get('name') ?? '',
        ...(size !== undefined && { dirtyBytes: Number(size) }),
        // libvirt gives the size of those whose bitmap is sound along the backing chain.
        isBroken: isActive && size === undefined,
      }
    }),
  }
}

/** Says in the checkpoint's description that its backup is stored. */
export async function markStored(virsh: Virsh, uuid: string, name: string): Promise<void> {
  const text = (await dump(virsh, uuid, name, ['--security-info'])) ?? ''
  const stored = text.replace(
    /<description>[^<]*<\/description>/,
    `<description>${OURS}</description>`,
  )
  await redefine(virsh, uuid, stored)
}

/**
 * Deletes a checkpoint of an active domain with its bitmaps; if some are broken, what there is of it,
 * so that its name is free.
 * @returns notes: what is left of it
 */
export async function deleteCheckpoint(
  virsh: Virsh,
  uuid: string,
  name: string,
): Promise<string[]> {
  const command = ['checkpoint-delete', `--domain=${uuid}`, `--checkpointname=${name}`]
  const failure = await virsh.run(command).then(
    () => undefined,
    (error) => error,
  )
  if (failure === undefined) return []
  const checkpoint = await readCheckpoint(virsh, uuid, name, true)
  if (!checkpoint) return []
  const broken = checkpoint.disks.filter(({ isBroken }) => isBroken).map(({ name }) => name)
  if (broken.length === 0) throw failure
  // libvirt deletes all bitmaps or none, so the broken ones are taken off the list first.
  const text = (await dump(virsh, uuid, name, ['--security-info'])) ?? ''
  const without = text.replace(
    /<disk name='([^']*)' checkpoint='bitmap'[^>]*\/>/g,
    (whole, disk) => (broken.includes(disk) ? `<disk name='${disk}' checkpoint='no'/>` : whole),
  )
  await redefine(virsh, uuid, without)
  await virsh.run(command)
  const why = `what there may be of its bitmap in the image of ${broken.join(', ')} stays until it is removed`
  const how = 'with qcow2-backup bitmap --remove while the domain is shut off'
  return [`checkpoint ${name} was broken: ${why} ${how}`]
}

/** Forgets a checkpoint of a domain that is shut off; its bitmaps are another matter. */
export async function forgetCheckpoint(virsh: Virsh, uuid: string, name: string): Promise<void> {
  const command = ['checkpoint-delete', `--domain=${uuid}`, `--checkpointname=${name}`]
  await virsh.run([...command, '--metadata'])
}

/** Tells libvirt of the bitmaps that began in the images of a domain that is shut off. */
export async function defineCheckpoint(
  virsh: Virsh,
  uuid: string,
  name: string,
  disks: readonly string[],
  time: Date,
): Promise<void> {
  const parent = (await listCheckpoints(virsh, uuid, false)).pop()?.name
  const parentXml = parent === undefined ? '' : `<parent><name>${escapeXml(parent)}</name></parent>`
  const created = `<creationTime>${Math.floor(time.getTime() / 1000)}</creationTime>`
  const rows = disks.map((disk) => {
    return `<disk name='${escapeXml(disk)}' checkpoint='bitmap' bitmap='${escapeXml(name)}'/>`
  })
  const head = `<name>${escapeXml(name)}</name><description>${OURS}</description>`
  const xml = `<domaincheckpoint>${head}${parentXml}${created}<disks>${rows.join('')}</disks></domaincheckpoint>`
  await redefine(virsh, uuid, xml)
}

/** The XML of a checkpoint that is to be made; disks that are not named get no bitmap. */
export function checkpointXml(name: string, mark: string, disks: ReadonlyMap<string, boolean>) {
  const rows = [...disks].map(([disk, wanted]) => {
    return `<disk name='${escapeXml(disk)}' checkpoint='${wanted ? 'bitmap' : 'no'}'/>`
  })
  const head = `<name>${escapeXml(name)}</name><description>${unfinishedDescription(mark)}</description>`
  return `<domaincheckpoint>${head}<disks>${rows.join('')}</disks></domaincheckpoint>`
}

async function dump(
  virsh: Virsh,
  uuid: string,
  name: string,
  options: readonly string[],
  run?: VirshOptions,
): Promise<string | undefined> {
  const command = ['checkpoint-dumpxml', `--domain=${uuid}`, `--checkpointname=${name}`]
  try {
    return await virsh.run([...command, ...options], run)
  } catch (error) {
    if (error instanceof VirshError && /no domain checkpoint|not found/i.test(error.said)) return
    throw error
  }
}

async function redefine(virsh: Virsh, uuid: string, xml: string): Promise<void> {
  const file = `--xmlfile=${documentPath(0)}`
  const command = ['checkpoint-create', `--domain=${uuid}`, file, '--redefine']
  await virsh.run(command, { documents: [xml] })
}
