/**
 * A real libvirtd for tests, of its own: its session, sockets and files are in a directory that goes
 * with the test, and nothing of the host's libvirt is read or touched. It needs no systemd, D-Bus or
 * polkit. As root, for whom libvirtd would be the system's, it runs as another user.
 */
import { execFile, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Test } from 'tap'
import { run } from './qemu.ts'
import { type RunningServer, startServer } from './server.ts'

/** User and group `nobody` of every Linux system. */
const NOBODY = 65534

export interface TestDisk {
  /** Target, such as `vda`. */
  dev: string
  path: string
  format: 'raw' | 'qcow2'
  /** More in `<disk>`. */
  xml?: string
}

/** More of a domain's definition. */
export interface DomainXml {
  /** In `<os>`. */
  os?: string
  /** In `<devices>`. */
  devices?: string
  /** MiB. */
  memory?: number
}

export interface Libvirtd {
  /** For `--connect`. */
  readonly connect: string
  /** For disks and scratch files: QEMU's user can write there. */
  readonly directory: string
  /** Runs virsh; throws unless it succeeds. */
  virsh(...args: string[]): Promise<string>
  /** Defines a domain; without more it has no operating system. */
  define(name: string, disks: readonly TestDisk[], more?: DomainXml): Promise<TestDomain>
  /** Makes a file of QEMU's user. */
  give(path: string): string
  /** Ends the daemon, its domains go on. */
  stop(signal?: NodeJS.Signals): Promise<void>
  /** Starts it again. */
  start(): Promise<void>
}

export interface TestDomain {
  readonly name: string
  virsh(command: string, ...args: string[]): Promise<string>
  /** Has the disk written to, as the guest would: `qemu-io` commands. */
  io(dev: string, ...commands: string[]): Promise<void>
  /** The process id of its QEMU. */
  pid(): number
  /** The content of a disk now, in a raw file. */
  snapshot(disk: TestDisk, path: string): Promise<string>
}

/**
 * Starts one that has no domains yet; it ends with the test.
 * @param qemuConf lines of its qemu.conf
 */
export async function startLibvirtd(
  t: Test,
  qemuConf: (directory: string) => string = () => '',
): Promise<Libvirtd> {
  const root = mkdtempSync(join(tmpdir(), 'lv-'))
  const isRoot = process.getuid!() === 0
  const at = (name: string): string => {
    const path = join(root, name)
    mkdirSync(path)
    if (isRoot) chownSync(path, NOBODY, NOBODY)
    chmodSync(path, name === 'run' ? 0o700 : 0o755)
    return path
  }
  chmodSync(root, 0o755)
  const [directory, home, runtime] = [at('d'), at('home'), at('run')]
  writeFileSync(join(root, 'libvirtd.conf'), 'auth_unix_rw = "none"\n')
  const config = join(home, 'config', 'libvirt')
  mkdirSync(config, { recursive: true })
  writeFileSync(join(config, 'qemu.conf'), qemuConf(directory))
  if (isRoot) for (const path of [config, dirname(config)]) chownSync(path, NOBODY, NOBODY)
  const socket = join(runtime, 'libvirt', 'libvirt-sock')
  const variables = {
    HOME: home,
    PATH: `${process.env.PATH}:/usr/sbin:/sbin`,
    XDG_RUNTIME_DIR: runtime,
    XDG_CONFIG_HOME: join(home, 'config'),
    XDG_CACHE_HOME: join(home, 'cache'),
    XDG_DATA_HOME: join(home, 'data'),
  }
  const user = isRoot
    ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups']
    : ['nice', '-n', '0']
  const [tool, ...args] = [
    ...user,
    ...['env', '-i', ...Object.entries(variables).map(([name, value]) => `${name}=${value}`)],
    ...['libvirtd', '--timeout', '0', '-f', join(root, 'libvirtd.conf')],
    ...['--pid-file', join(runtime, 'pid')],
  ]
  const connect = `qemu+unix:///session?socket=${socket}`
  const virsh = (...args: string[]): Promise<string> => {
    return new Promise((resolve, reject) => {
      execFile('virsh', ['-q', '-c', connect, ...args], (error, stdout, stderr) => {
        if (error) reject(new Error(`virsh ${args.join(' ')}: ${stderr}`))
        else resolve(stdout)
      })
    })
  }
  const pids = join(runtime, 'libvirt', 'qemu', 'run')
  const killDomains = (): void => {
    if (!existsSync(pids)) return
    for (const name of readdirSync(pids)) {
      if (name === 'driver.pid' || !name.endsWith('.pid')) continue
      try {
        process.kill(Number(readFileSync(join(pids, name), 'utf8')), 'SIGKILL')
      } catch {
        // It has ended.
      }
    }
  }
  process.on('exit', killDomains)
  let server: RunningServer | undefined
  const start = async (): Promise<void> => {
    rmSync(socket, { force: true })
    server = await startServer(t, tool, args, socket)
    // Waits until the driver has asked QEMU what it can.
    await virsh('version')
  }
  t.teardown(async () => {
    await server?.stop()
    killDomains()
    process.off('exit', killDomains)
    rmSync(root, { recursive: true, force: true })
  })
  await start()
  const give = (path: string): string => {
    if (isRoot) chownSync(path, NOBODY, NOBODY)
    return path
  }
  return {
    connect,
    directory,
    virsh,
    give,
    start,
    stop: (signal) => server!.stop(signal),
    async define(name, disks, more = {}) {
      const file = join(root, `${name}.xml`)
      for (const { path } of disks) give(path)
      writeFileSync(file, domainXml(name, disks, more))
      await virsh('define', file)
      return domainOf(name, virsh, join(pids, `${name}.pid`))
    },
  }
}

function domainOf(name: string, virsh: Libvirtd['virsh'], pidFile: string): TestDomain {
  const monitor = (command: string): Promise<string> =>
    virsh('qemu-monitor-command', name, '--hmp', command)
  return {
    name,
    virsh: (command, ...args) => virsh(command, name, ...args),
    async io(dev, ...commands) {
      const xml = await virsh('dumpxml', name)
      const disk = xml.split('<disk ').find((part) => part.includes(`<target dev='${dev}'`))
      const alias = /<alias name='([^']*)'/.exec(disk!)![1]
      for (const command of commands) {
        const path = `/machine/peripheral/${alias}/virtio-backend`
        const said = await monitor(`qemu-io -d ${path} "${command}"`)
        if (/failed|error/i.test(said)) throw new Error(`${command}: ${said}`)
      }
    },
    pid: () => Number(readFileSync(pidFile, 'utf8')),
    async snapshot({ dev, path, format }, target) {
      await this.io(dev, 'flush')
      const args = ['convert', '-U', '-f', format, '-O', 'raw', path, target]
      const { status, stderr } = run('qemu-img', args)
      if (status !== 0) throw new Error(stderr)
      return target
    },
  }
}

function domainXml(
  name: string,
  disks: readonly TestDisk[],
  { os = '', devices = '', memory = 32 }: DomainXml,
): string {
  const rows = disks.map(({ dev, path, format, xml = '' }) => {
    const driver = `<driver name='qemu' type='${format}' discard='unmap'/>`
    const target = `<target dev='${dev}' bus='virtio'/><serial>${dev}</serial>`
    return `<disk type='file' device='disk'>${driver}<source file='${path}'/>${target}${xml}</disk>`
  })
  return `<domain type='qemu'><name>${name}</name><memory unit='MiB'>${memory}</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='q35'>hvm</type>${os}</os><features><acpi/></features>
    <cpu mode='maximum'/><on_reboot>restart</on_reboot>
    <devices>${rows.join('')}${devices}<controller type='usb' model='none'/>
    <memballoon model='none'/><video><model type='none'/></video></devices></domain>`
}

/** Whether a process is there. */
export function isRunning(pid: number): boolean {
  return spawnSync('kill', ['-0', `${pid}`]).status === 0
}
