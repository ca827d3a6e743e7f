/** Rules of reports besides those of all pages. */
export const STYLE = `
header p { margin: 0; }
.figures { display: flex; flex-wrap: wrap; margin: 1.4rem 0; border: 1px solid var(--edge);
  border-radius: 8px; overflow: hidden; }
.figures div { flex: 1 1 8.5rem; padding: .7rem .9rem; margin: 0 -1px -1px 0;
  border: solid var(--edge); border-width: 0 1px 1px 0; }
.figures dt { color: var(--soft); font-size: .82rem; }
.figures dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.findings { list-style: none; padding: 0; margin: 1rem 0; max-width: none; }
.findings li { display: grid; grid-template-columns: 1.6rem 1fr; padding: .3rem 0;
  overflow-wrap: anywhere; }
.findings li { color: var(--ink); font-weight: 400; }
.findings .good b { color: var(--good); } .findings .fault b { color: var(--bad); }
.findings .warning b { color: var(--warn); } .findings .note b { color: var(--soft); }
.chart { display: block; overflow: visible; touch-action: pan-y; }
.chart text { font-size: 12px; font-variant-numeric: tabular-nums; }
.chart .middle { text-anchor: middle; } .chart .last { text-anchor: end; }
.data { fill: var(--accent); } .compressed { fill: var(--deep); } .zero { fill: var(--zero); }
.hidden { fill: var(--tint); } .unknown { fill: var(--bad); } .dirty { fill: var(--warn); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .4rem 0 .8rem;
  list-style: none; color: var(--soft); font-size: .85rem; }
.legend svg { width: .8rem; height: .8rem; vertical-align: -1px; margin-right: .4rem; }
.tip { position: fixed; z-index: 1; max-width: 22rem; padding: .2rem .55rem; border-radius: 4px;
  background: var(--ink); color: var(--paper); font-size: .82rem; pointer-events: none;
  font-variant-numeric: tabular-nums; }
.tip[hidden] { display: none; }
.line, .words { text-align: left; } td.words { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
@media (max-width: 40rem) {
  body { padding: 1.2rem 1rem 3rem; } h1 { font-size: 1.35rem; }
  .chart .odd, td.extra, th.extra { display: none; }
  .cards thead { display: none; } .cards, .cards tbody, .cards tr { display: block; width: 100%; }
  .cards tr { padding: .5rem 0; border-bottom: 1px solid var(--edge); }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0;
    white-space: normal; text-align: right; }
  .cards td::before { content: attr(data-label); color: var(--soft); flex: none; }
  .cards td:first-child { font-weight: 600; text-align: left; } .cards td:first-child::before { content: none; }
  .cards td:empty { display: none; }
}
@media print {
  html { font-size: 70%; } body { max-width: none; padding: 0 2px; }
  .chart text { font-size: 9px; } .tip, .filter { display: none; } figure, .figures, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .scroll { overflow: visible; }
}
`
