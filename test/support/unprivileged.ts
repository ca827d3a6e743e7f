/** Running programs as somebody for whom the modes of files count, which they do not for root. */

const CAPABILITIES = '-dac_override,-dac_read_search'

/**
 * The command that runs another one as its files' owner sees them. Root becomes no other user,
 * since that one might not reach the program itself, but loses the right to pass over modes.
 */
export function unprivileged(command: readonly string[]): string[] {
  if (process.getuid!() !== 0) return [...command]
  return ['setpriv', '--inh-caps', CAPABILITIES, '--bounding-set', CAPABILITIES, ...command]
}
