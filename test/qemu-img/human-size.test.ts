import t from 'tap'
import { humanSize } from '../../lib/qemu-img/human-size.ts'

const K = 1024
const M = K * K
const G = K * M

t.test('sizes are printed as QEMU prints them', async (t) => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1, '1 B'],
    [999, '999 B'],
    [1000, '0.977 KiB'],
    [1023, '0.999 KiB'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [10 * K + 51, '10 KiB'],
    [10 * K + 52, '10.1 KiB'],
    [1_024_000, '0.977 MiB'],
    [1_047_552, '0.999 MiB'],
    [1_023_999, '1e+03 KiB'],
    [999 * K + 511, '999 KiB'],
    [G, '1 GiB'],
    [2 ** 53 - 1, '8 PiB'],
  ]
  for (const [bytes, text] of cases) t.equal(humanSize(bytes), text, `${bytes}`)
})

t.test('a tie goes to the even digit, as in C', async (t) => {
  t.equal(humanSize(1.125 * G), '1.12 GiB')
  t.equal(humanSize(1.375 * G), '1.38 GiB')
  t.equal(humanSize(1.125 * G + 1), '1.13 GiB')
  t.equal(humanSize(10.25 * M), '10.2 MiB')
  t.equal(humanSize(10.75 * M), '10.8 MiB')
  t.equal(humanSize(100.5 * M), '100 MiB')
  t.equal(humanSize(101.5 * M), '102 MiB')
})
