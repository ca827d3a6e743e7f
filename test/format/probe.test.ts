import t from 'tap'
import { probe } from '../../lib/format/probe.ts'

t.test('qcow2 by its magic, all else raw', async (t) => {
  t.equal(probe(Buffer.from('514649fb', 'hex')), 'qcow2')
  t.equal(probe(Buffer.from('514649fb00000003', 'hex')), 'qcow2')
  t.equal(probe(Buffer.from('514649fa00000003', 'hex')), 'raw')
  t.equal(probe(Buffer.from('514649', 'hex')), 'raw', 'a file shorter than the magic')
  t.equal(probe(Buffer.alloc(0)), 'raw')
  t.equal(probe(Buffer.alloc(512)), 'raw')
})
