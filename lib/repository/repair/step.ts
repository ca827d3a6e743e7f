/** Something that `repairRepository` does, or leaves to people. */
export interface RepairStep {
  machine: string
  point?: string
  /** Path. */
  file: string
  /**
   * - `finish`: a prune that was killed, by its journal;
   * - `remove`: a file that a run left which was killed, and which is no point's;
   * - `rebuild`: the record of a point, from its images;
   * - `set-aside`: a file that cannot be read gets another name, `to`;
   * - `leave`: nothing that is certain to lose nothing can be done.
   */
  action: 'finish' | 'remove' | 'rebuild' | 'set-aside' | 'leave'
  /** False in a dry run, and of what is left. */
  done: boolean
  why: string
  /** Path. */
  to?: string
}
