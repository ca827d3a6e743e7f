/** A guest that stands by a backup job goes on, whoever ended the job. */
import t from 'tap'
import { beginRun } from '../../../lib/machine/libvirt/owner.ts'
import { endJob } from '../../../lib/machine/libvirt/point.ts'
import { Virsh, VirshError } from '../../../lib/machine/libvirt/virsh.ts'

/** Of a domain without a job. */
class IdleDomain extends Virsh {
  readonly commands: string[] = []
  readonly #state: string

  constructor(state: string) {
    super('test:///default', 'libvirt:web1')
    this.#state = state
  }

  override async run([command]: readonly string[]): Promise<string> {
    this.commands.push(command)
    if (command === 'domjobinfo') return 'Job type:         None\n'
    if (command === 'domstate') return `${this.#state}\n`
    if (command === 'resume') return ''
    throw new VirshError(this.title, command, 'error: not expected')
  }
}

t.test('a guest that the job left standing', async (t) => {
  const { mark, end } = await beginRun('0123456789ab')
  end()
  const resumed = async (state: string, stoodBefore?: boolean) => {
    const virsh = new IdleDomain(state)
    await endJob(virsh, 'uuid', mark, { stoodBefore })
    return virsh.commands.includes('resume')
  }
  t.ok(await resumed('paused (I/O error)', false), 'the job was ended, and the guest stands')
  t.notOk(await resumed('paused (I/O error)', true), 'it stood before the run')
  t.notOk(await resumed('paused (I/O error)'), 'it is not known whether the run had a job')
  t.notOk(await resumed('paused (user)', false), 'somebody has stopped it')
})
