import type { House } from './graph.ts'

/**
 * Circles among the files of a side, imports of types included: each as the files that lead from one to
 * the next and back to the first. A .cc and the .h of its name count as one file.
 */
export function fileCircles(house: House): string[][] {
  const unit = (file: string) => file.replace(/\.(cc|h)$/, '')
  return circles(graphOf(house, unit))
}

/**
 * Circles among the folders and files directly in one room: also inside a room, arrows go only one way.
 * A folder counts as one thing with all that is below it.
 */
export function folderCircles(house: House): string[][] {
  const part = (file: string) => file.split('/').slice(0, 2).join('/')
  return circles(graphOf(house, part)).filter((circle) =>
    circle.some((name) => !house.lines.has(name)),
  )
}

function graphOf(house: House, unit: (file: string) => string): Map<string, Set<string>> {
  const graph = new Map<string, Set<string>>()
  for (const [file, arrows] of house.arrows) {
    const from = unit(file)
    const targets = graph.get(from) ?? new Set()
    graph.set(from, targets)
    for (const { to } of arrows) {
      if (house.lines.has(to) && unit(to) !== from) targets.add(unit(to))
    }
  }
  return graph
}

/** One circle for each group of nodes that all lead to each other. */
function circles(graph: Map<string, Set<string>>): string[][] {
  const found: string[][] = []
  const done = new Set<string>()
  for (const start of [...graph.keys()].sort()) {
    if (done.has(start)) continue
    const path = wayBack(graph, start)
    if (!path) continue
    found.push(path)
    for (const node of path) done.add(node)
  }
  return found
}

/** The shortest way from a node to itself; undefined if there is none. */
function wayBack(graph: Map<string, Set<string>>, start: string): string[] | undefined {
  const came = new Map<string, string>()
  const queue = [start]
  for (let node = queue.shift(); node !== undefined; node = queue.shift()) {
    for (const next of graph.get(node) ?? []) {
      if (next === start) return wayTo(came, start, node)
      if (came.has(next)) continue
      came.set(next, node)
      queue.push(next)
    }
  }
  return undefined
}

function wayTo(came: Map<string, string>, start: string, end: string): string[] {
  const way = [end]
  while (way[0] !== start) way.unshift(came.get(way[0])!)
  return way
}
