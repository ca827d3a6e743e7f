import { THOROUGH } from './effort.ts'

/**
 * For tap's `skip`: who is not root may leave out what only root can do, but for CI, where everything has
 * to run: there it fails.
 * @param what only root can do
 */
export function skipUnlessRoot(what: string): string | false {
  const mustRun = THOROUGH || Boolean(process.env.CI) || process.getuid?.() === 0
  return mustRun ? false : `only root can ${what}, and this is not root`
}
