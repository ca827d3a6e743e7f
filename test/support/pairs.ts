/**
 * Cases in which every two values of different factors meet at least once: far fewer than all
 * combinations, and most faults need no more than two to come together.
 * @param factors the values that each factor can have
 * @param possible says no to combinations that there cannot be; asked with complete cases only
 */
export function allPairs<T extends object>(
  factors: { [K in keyof T]: readonly T[K][] },
  possible: (candidate: T) => boolean = () => true,
): T[] {
  const candidates = combinations(factors).filter(possible)
  const missing = new Set(candidates.flatMap(pairsOf))
  const chosen: T[] = []
  while (missing.size > 0) {
    let best = candidates[0]
    let gain = 0
    // Among equals another one each time, so that no value fills up the rest of all cases.
    const first = (chosen.length * 7919) % candidates.length
    for (const candidate of [...candidates.slice(first), ...candidates.slice(0, first)]) {
      const news = pairsOf(candidate).filter((pair) => missing.has(pair)).length
      if (news > gain) {
        best = candidate
        gain = news
      }
    }
    for (const pair of pairsOf(best)) missing.delete(pair)
    chosen.push(best)
  }
  return chosen
}

function combinations<T extends object>(factors: { [K in keyof T]: readonly T[K][] }): T[] {
  let all: Partial<T>[] = [{}]
  for (const name of Object.keys(factors) as (keyof T)[]) {
    all = all.flatMap((one) => factors[name].map((value) => ({ ...one, [name]: value })))
  }
  return all as T[]
}

function pairsOf(candidate: object): string[] {
  const values = Object.entries(candidate).map(([name, value]) => `${name}=${value}`)
  return values.flatMap((a, i) => values.slice(i + 1).map((b) => `${a}&${b}`))
}
