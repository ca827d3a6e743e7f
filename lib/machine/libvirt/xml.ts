import { BackupError } from '../../errors.ts'

/** An element of an XML document. */
export interface XmlElement {
  name: string
  attributes: ReadonlyMap<string, string>
  children: XmlElement[]
  /** The text directly in it. */
  text: string
}

/**
 * Parses a document of libvirt's. No document type declaration counts, so nothing is fetched or
 * expanded but XML's own five entities.
 * @param what it is, for messages
 * @throws BackupError IO if it is no XML
 */
export async function parseXml(text: string, what: string): Promise<XmlElement> {
  const { default: sax } = await import('sax')
  const parser = sax.parser(true)
  const top: XmlElement = { name: '', attributes: new Map(), children: [], text: '' }
  const open = [top]
  parser.onopentag = ({ name, attributes }) => {
    const values = new Map(Object.entries(attributes as Record<string, string>))
    const element: XmlElement = { name, attributes: values, children: [], text: '' }
    open[open.length - 1].children.push(element)
    open.push(element)
  }
  parser.onclosetag = () => {
    open.pop()
  }
  parser.ontext = parser.oncdata = (part) => {
    open[open.length - 1].text += part
  }
  parser.onerror = (error) => {
    throw new BackupError('IO', what, `is not valid XML: ${error.message.split('\n')[0]}`)
  }
  parser.write(text).close()
  if (top.children.length === 1) return top.children[0]
  throw new BackupError('IO', what, 'is not an XML document')
}

/** The first element by a path of names; undefined if there is none. */
export function elementAt(
  element: XmlElement | undefined,
  ...path: readonly string[]
): XmlElement | undefined {
  return path.reduce((found, name) => found?.children.find((child) => child.name === name), element)
}

/** All children of a name. */
export function childrenOf(element: XmlElement | undefined, name: string): XmlElement[] {
  return element?.children.filter((child) => child.name === name) ?? []
}

/** The text of the first element by a path. */
export function textAt(element: XmlElement | undefined, ...path: string[]): string | undefined {
  return elementAt(element, ...path)?.text.trim()
}

const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
  '"': '&quot;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
}

/** A text as it stands in an element or an attribute. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>'"\t\n\r]/g, (character) => ESCAPES[character])
}
