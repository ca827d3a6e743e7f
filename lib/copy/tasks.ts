import { type Range, RangeSet } from '../extents/range-set.ts'

/**
 * The areas that a copy still has to do. The rule is that of QEMU's block-copy, in which a fleecing client
 * may discard what it has stored: an area leaves the to-do set when its task starts, returns if
 * the task fails, and never returns once discarded; a discard cancels the tasks inside it.
 *
 * Bytes in flight belong to one task only, and bytes in neither set are done or discarded, so
 * these two sets are all there is to keep: they stay small while a copy goes through its disk in
 * order, however large that is.
 */
export class Tasks {
  readonly #toDo = new RangeSet()
  readonly #inFlight = new RangeSet()

  /** @param size bytes; all of them are to do */
  constructor(size: number) {
    this.#toDo.add({ start: 0, length: size })
  }

  /** In order. */
  get toDo(): Iterable<Range> {
    return this.#toDo
  }

  /** In order; neighbouring tasks are one area. */
  get inFlight(): Iterable<Range> {
    return this.#inFlight
  }

  /** Nothing is to do and nothing in flight. */
  get isComplete(): boolean {
    return this.#toDo.isEmpty && this.#inFlight.isEmpty
  }

  /**
   * Takes from the to-do set.
   * @returns the parts of the area that were to do, and are in flight from now on
   */
  start(area: Range): Range[] {
    return move(area, this.#toDo, this.#inFlight)
  }

  /** Marks the parts of the area in flight as done. */
  finish(area: Range): void {
    this.#inFlight.remove(area)
  }

  /**
   * Gives back to the to-do set.
   * @returns the parts of the area that were in flight, and are to do again: none that were discarded or done
   * meanwhile
   */
  fail(area: Range): Range[] {
    return move(area, this.#inFlight, this.#toDo)
  }

  /**
   * Drops the area for good, whether it is to do, in flight or done.
   * @returns the parts that were in flight: their tasks are to be cancelled, none of their data may
   * be used
   */
  discard(area: Range): Range[] {
    this.#toDo.remove(area)
    return this.#inFlight.remove(area)
  }
}

function move(area: Range, from: RangeSet, to: RangeSet): Range[] {
  const moved = from.remove(area)
  for (const part of moved) to.add(part)
  return moved
}
