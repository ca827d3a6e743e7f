/** The report's style sheet: nothing is fetched, and both light and dark are readable. */
export const STYLE = `
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6472; --paper: #fff; --edge: #d9dee6;
  --ours: #2563eb; --peer: #c2570c; --limit: #64748b; --pass: #15803d; --miss: #c01c28; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a0a9b8; --paper: #14181f;
  --edge: #323a47; --ours: #7aa2ff; --peer: #f0975a; --limit: #94a3b8; --pass: #5bd087;
  --miss: #ff7b7b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 76rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .2rem; border-top: 1px solid var(--edge); padding-top: 1.2rem; }
h3 { font-size: .95rem; margin: .8rem 0 0; }
p, ul { margin: .4rem 0; max-width: 60rem; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid var(--edge); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; vertical-align: bottom;
  white-space: normal; }
th:first-child, td:first-child { text-align: left; }
.pass { color: var(--pass); } .miss { color: var(--miss); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 0 1.5rem; }
pre { background: color-mix(in srgb, var(--edge) 40%, transparent); padding: .7rem .9rem;
  border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
svg { width: 100%; max-width: 640px; height: auto; display: block; }
svg text { fill: var(--ink); font-size: 13px; }
svg .label { text-anchor: end; } svg .tick { text-anchor: middle; fill: var(--soft); }
svg .grid { stroke: var(--edge); } svg .pair { stroke: var(--soft); opacity: .55; }
svg .most { stroke: var(--miss); stroke-dasharray: 5 4; stroke-width: 1.5; }
svg rect { opacity: .35; }
svg .ours { fill: var(--ours); } svg .peer { fill: var(--peer); } svg .limit { fill: var(--limit); }
`
