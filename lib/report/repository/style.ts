/** Rules of the page of a repository besides those of all reports. */
export const STYLE = `
.mark { stroke-width: 1.6; vector-effect: non-scaling-stroke; stroke: var(--accent); fill: none; }
.chart path.grid { vector-effect: non-scaling-stroke; }
.mark.whole { stroke-width: 2.6; stroke: var(--deep); } .mark.different { stroke-width: 3; stroke: var(--bad); }
.mark.goes { stroke: var(--soft); opacity: .55; }
rect.point { fill: var(--accent); } rect.whole { fill: var(--deep); } rect.goes { fill: var(--soft); opacity: .55; }
rect.different { fill: var(--bad); }
.under { fill: var(--tint); opacity: .55; } .line { fill: none; stroke: var(--accent); stroke-width: 1.6;
  vector-effect: non-scaling-stroke; }
.row, .machine > summary { display: grid; grid-template-columns: 1.4rem minmax(7rem, 13rem) 1fr 5.5rem 6.5rem;
  gap: 0 1rem; align-items: center; font-variant-numeric: tabular-nums; }
.row { color: var(--soft); font-size: .85rem; font-weight: 600; padding: .2rem 0; }
.row > :nth-child(n+4), .machine > summary > :nth-child(n+4) { text-align: right; white-space: nowrap; }
.axis { overflow: visible; }
summary { cursor: pointer; padding: .3rem 0; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--wash); } summary:focus-visible { outline: 2px solid var(--accent); }
summary b::after, summary.more::after { content: ' ▸'; color: var(--soft); font-weight: 400; }
[open] > summary b::after, [open] > summary.more::after { content: ' ▾'; }
summary b { overflow-wrap: anywhere; font-weight: 600; } summary .state { text-align: center; }
details.machine { border-top: 1px solid var(--edge); } details.machine[open] > summary { background: var(--wash); }
details.machine > div { padding: .4rem 0 1.6rem 2.4rem; }
.machines { border-bottom: 1px solid var(--edge); }
.state.warning { color: var(--warn); } .state.fault { color: var(--bad); } .state.good { color: var(--good); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0 2rem; }
figure { margin: .8rem 0; } figcaption { font-size: .85rem; color: var(--soft); margin-bottom: .2rem; }
.filter { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--edge);
  border-radius: 6px; padding: .35rem .7rem; margin: 0 0 .8rem; width: min(20rem, 100%); }
@media (max-width: 40rem) {
  .row { display: block; } .row > :not(:nth-child(3)) { display: none; }
  .machine > summary { grid-template-columns: 1.4rem 1fr auto; gap: 0 .6rem; padding: .5rem 0; }
  .machine > summary > :nth-child(3) { grid-row: 2; grid-column: 1 / -1; }
  .machine > summary > :nth-child(4) { display: none; }
  details.machine > div { padding-left: 0; }
}
@media print { details.machine { break-inside: avoid; } .machines { border: 0; } }
`
