/**
 * A line for each decision, with its reason. Lines go to diagnostics channels, one for each topic, to
 * which any program can subscribe; `QCOW2_BACKUP_DEBUG` prints them on stderr. Where nobody listens
 * they are not even made.
 */
import { type Channel, channel } from 'node:diagnostics_channel'
import { writeSync } from 'node:fs'
import { hideTickets, oneLine } from './text.ts'

/** Topics of log lines; the channel is `qcow2-backup:TOPIC`. */
export const TOPICS = [
  /** Formats, and how images are opened. */
  'image',
  /** Which files that images name may be followed. */
  'gate',
  /** QEMU's locks. */
  'lock',
  /** Connections to NBD servers. */
  'nbd',
  /** Connections to imageio servers. */
  'imageio',
  /** Commands of virsh, without their arguments. */
  'virsh',
  /** Commands to QEMU's monitor, without their arguments. */
  'qmp',
  /** Decisions about the ranges of a disk. */
  'plan',
  /** The copy: engine, O_DIRECT, retries, discards. */
  'copy',
  /** How targets are made and published. */
  'target',
  /** The steps of edits. */
  'edit',
  /** Checks of an image's structure. */
  'check',
  /** Comparing two disks. */
  'compare',
  /** The image server: requests, tickets. */
  'serve',
] as const

/** The topic of a log line. */
export type Topic = (typeof TOPICS)[number]

/** The message that subscribers get. */
export interface LogLine {
  topic: Topic
  /** May hold anything that a file's name can. Never credentials. */
  text: string
}

const CHANNELS = Object.fromEntries(
  TOPICS.map((topic) => [topic, channel(`qcow2-backup:${topic}`)]),
) as Record<Topic, Channel>

/** Credentials in a URI: everything up to the last @ before a slash. */
const CREDENTIALS = /(\b[a-z][a-z+]*:\/\/)[^/?#\s]*@/gi

/** @param text made only if somebody listens */
export function log(topic: Topic, text: () => string): void {
  const to = CHANNELS[topic]
  if (!to.hasSubscribers) return
  to.publish({
    topic,
    text: hideTickets(text().replace(CREDENTIALS, '$1')),
  } satisfies LogLine)
}

const printed = new Set<Topic>()

/**
 * Prints lines on stderr from now on.
 * @param names topics, with commas between them; `*` for all
 * @returns names that are not topics
 */
export function printTopics(names: string): string[] {
  const wanted = names.split(',').map((name) => name.trim())
  for (const topic of TOPICS) {
    if (printed.has(topic) || !(wanted.includes('*') || wanted.includes(topic))) continue
    printed.add(topic)
    CHANNELS[topic].subscribe(print)
  }
  return wanted.filter((name) => name !== '' && name !== '*' && !TOPICS.includes(name as Topic))
}

/** Synchronous: the last lines before a crash matter. */
function print(line: unknown): void {
  const { topic, text } = line as LogLine
  say(`${topic}: ${text}`)
}

function say(text: string): void {
  try {
    writeSync(2, `qcow2-backup ${oneLine(text)}\n`)
  } catch {
    // The reader is gone or too slow: not a reason to fail.
  }
}

const { QCOW2_BACKUP_DEBUG: asked } = process.env
if (asked) {
  for (const name of printTopics(asked)) {
    say(`QCOW2_BACKUP_DEBUG: there is no topic '${name}'; there are ${TOPICS.join(', ')}`)
  }
}
