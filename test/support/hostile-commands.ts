import type { Command } from './hostile-runner.ts'

/** Those that change nothing of `disk.qcow2`. */
const READING: readonly (readonly string[])[] = [
  ['info', 'disk.qcow2'],
  ['info', '--backing-chain', '--output=json', 'disk.qcow2'],
  ['check', 'disk.qcow2'],
  ['map', 'disk.qcow2'],
  ['map', '--output=json', 'disk.qcow2'],
  ['compare', '-U', 'disk.qcow2', 'disk.qcow2'],
  ['compare', '-s', '-f', 'raw', 'empty.raw', 'disk.qcow2'],
  ['measure', '-O', 'qcow2', 'disk.qcow2'],
  ['bitmap', 'list', 'disk.qcow2'],
  ['chain', '--json', 'disk.qcow2'],
  ['extents', 'disk.qcow2'],
  ['extents', '--bitmap', 'b', 'disk.qcow2'],
  ['full', '--no-progress', 'disk.qcow2', 'full.qcow2'],
  [
    'incremental',
    '--no-progress',
    '--bitmap',
    'b',
    '--backing',
    'disk.qcow2',
    'disk.qcow2',
    'i.qcow2',
  ],
  ['machine', 'disk:vda=disk.qcow2', '--name', 'web'],
  ['restore', '--no-progress', 'disk.qcow2', 'restored.raw'],
]

const WRITING: readonly (readonly string[])[] = [
  ['check', '-r', 'leaks', 'disk.qcow2'],
  ['check', '-r', 'all', 'disk.qcow2'],
  ['bitmap', '--add', 'disk.qcow2', 'new'],
  ['bitmap', '--clear', 'disk.qcow2', 'b'],
  ['bitmap', '--remove', 'disk.qcow2', 'b'],
  ['bitmap', '--add', '--merge', 'b', 'disk.qcow2', 'new'],
  ['snapshot', 'disk.qcow2', 'overlay.qcow2'],
  ['commit', 'disk.qcow2'],
  ['diff', 'disk.qcow2', 'empty.raw', '--bitmap', 'd'],
  ['backup', '--no-progress', 'disk:vda=disk.qcow2', '--name', 'web', '--repo', 'repository'],
]

/** Every command that opens an image, on `disk.qcow2`. */
export const COMMANDS: readonly Command[] = [
  ...READING.map((args) => ({ args, reads: true })),
  ...WRITING.map((args) => ({ args })),
]
