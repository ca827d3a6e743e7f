import type { Guest } from './guest.ts'

/**
 * Mounts ext4 disks and has the guest write, delete and trim on all of them from now on, until it is
 * restarted.
 * @param disks by their names
 */
export async function startLoad(guest: Guest, disks: readonly string[]): Promise<void> {
  await guest.run(
    'load() { i=0; disk=$(basename $1); while :; do i=$((i+1)); n=$((i%7)); ' +
      'dd if=/dev/urandom of=$1/file$n bs=64k count=$((1+i%11)); ' +
      // Zeroes inside of a file.
      '[ $((i%4)) != 0 ] || dd if=/dev/zero of=$1/file$n bs=4k count=$((3+i%40)) conv=notrunc; ' +
      '[ $((i%3)) != 0 ] || rm -f $1/file$(((n+3)%7)); ' +
      '[ $((i%5)) != 0 ] || fstrim $1; sync; echo $i >/tmp/load.$disk; done; }',
  )
  for (const disk of disks) {
    await guest.run(`mkdir -p /${disk} && mount /dev/disk/${disk} /${disk}`)
    await guest.run(`load /${disk} >/dev/null 2>&1 &`)
  }
}

/** Waits until the load has gone round once more on each disk. */
export async function moreLoad(guest: Guest, disks: readonly string[]): Promise<void> {
  for (const disk of disks) {
    const file = `/tmp/load.${disk}`
    await guest.run(
      `now=$(cat ${file} 2>/dev/null); while [ "$(cat ${file} 2>/dev/null)" = "$now" ]; do usleep 20000; done`,
    )
  }
}
