/** A Chromium without a window, driven by its DevTools protocol over a pipe. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { pathToFileURL } from 'node:url'
import type { Test } from 'tap'

/** How a page is looked at. */
export interface Look {
  width: number
  height?: number
  scheme?: 'light' | 'dark'
  media?: 'screen' | 'print'
  /** Fingers, and no pointer. */
  mobile?: boolean
}

interface Message {
  id?: number
  sessionId?: string
  method?: string
  params?: Record<string, unknown>
  result?: Record<string, unknown>
  error?: { message: string }
}

/** One page of a browser of its own. */
export class BrowserPage {
  /** What it complained of: messages on the console, exceptions, what its policy refused. */
  readonly complaints: string[] = []
  /** Addresses that it asked for. */
  readonly requests: string[] = []
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Message) => void>()
  readonly #heard = new Map<string, () => void>()
  #session: string | undefined
  #last = 0

  static async open(t: Test): Promise<BrowserPage> {
    const profile = mkdtempSync(join(tmpdir(), 'browser-'))
    const flags = ['--headless', '--remote-debugging-pipe', `--user-data-dir=${profile}`]
    // Root has no sandbox; the pages are our own. /dev/shm is small in containers.
    flags.push('--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run')
    const child = spawn('chromium', flags, {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
      detached: true,
    })
    const ended = new Promise((resolve) => child.once('close', resolve))
    t.teardown(async () => {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      await ended
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    })
    await new Promise((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', reject)
    })
    const page = new BrowserPage(child)
    const { targetId } = await page.#call('Target.createTarget', { url: 'about:blank' })
    const attached = await page.#call('Target.attachToTarget', { targetId, flatten: true })
    page.#session = attached.sessionId as string
    for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await page.#call(`${domain}.enable`)
    return page
  }

  private constructor(child: ChildProcess) {
    this.#child = child
    child.once('close', () => {
      for (const answer of this.#waiting.values()) answer({ error: { message: 'it has ended' } })
    })
    let rest = ''
    ;(child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\0')
      rest = messages.pop() ?? ''
      for (const message of messages) this.#take(JSON.parse(message))
    })
  }

  /** Loads a file, and waits until all of it is there. */
  async load(file: string): Promise<void> {
    const loaded = new Promise<void>((resolve) => this.#heard.set('Page.loadEventFired', resolve))
    await this.#call('Page.navigate', { url: pathToFileURL(file).href })
    await loaded
  }

  async look({ width, height = 900, scheme = 'light', media, mobile = false }: Look) {
    const screen = { width, height, deviceScaleFactor: 1, mobile }
    await this.#call('Emulation.setDeviceMetricsOverride', screen)
    const features = [{ name: 'prefers-color-scheme', value: scheme }]
    await this.#call('Emulation.setEmulatedMedia', { media: media ?? '', features })
  }

  /** The value of an expression there. */
  async evaluate<T>(expression: string): Promise<T> {
    const call = { expression, returnByValue: true, awaitPromise: true }
    const { result, exceptionDetails } = await this.#call('Runtime.evaluate', call)
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails))
    return (result as { value: T }).value
  }

  async pointTo(x: number, y: number): Promise<void> {
    await this.#call('Input.dispatchMouseEvent', { type: 'mouseMoved', x, y })
  }

  /** A picture of all of the page, as a file. */
  async picture(file: string): Promise<void> {
    const { cssContentSize } = await this.#call('Page.getLayoutMetrics')
    const clip = { ...(cssContentSize as object), scale: 1 }
    const { data } = await this.#call('Page.captureScreenshot', {
      captureBeyondViewport: true,
      clip,
    })
    writeFileSync(file, Buffer.from(data as string, 'base64'))
  }

  /** The pages that a printer would get, as PDF. */
  async print(): Promise<Buffer> {
    const { data } = await this.#call('Page.printToPDF', {})
    return Buffer.from(data as string, 'base64')
  }

  async #call(method: string, params: object = {}): Promise<Record<string, unknown>> {
    const id = ++this.#last
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve))
    const message = { id, method, params, sessionId: this.#session }
    ;(this.#child.stdio[3] as Writable).write(`${JSON.stringify(message)}\0`)
    const { result, error } = await answer
    if (error) throw new Error(`${method}: ${error.message}`)
    return result ?? {}
  }

  #take({ id, method = '', params = {}, ...answer }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.(answer)
      this.#waiting.delete(id)
    }
    this.#heard.get(method)?.()
    const complains = ['Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded']
    if (complains.includes(method)) this.complaints.push(JSON.stringify(params))
    if (method === 'Network.requestWillBeSent') {
      this.requests.push((params as { request: { url: string } }).request.url)
    }
  }
}
