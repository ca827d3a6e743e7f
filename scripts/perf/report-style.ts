/** Rules of the report besides those of all pages. */
export const STYLE = `
:root { --ours: var(--accent); --peer: #c2570c; --limit: var(--soft); }
@media (prefers-color-scheme: dark) { :root { --peer: #f0975a; } }
h2 { border-top: 1px solid var(--edge); padding-top: 1.2rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  gap: 0 1.5rem; }
pre { background: var(--wash); padding: .7rem .9rem; border-radius: 4px; white-space: pre-wrap;
  font-size: .85rem; }
svg { width: 100%; max-width: 640px; height: auto; display: block; }
svg text { font-size: 13px; } svg .label { text-anchor: end; } svg .tick { text-anchor: middle; }
svg .pair { stroke: var(--soft); opacity: .55; }
svg .most { stroke: var(--bad); stroke-dasharray: 5 4; stroke-width: 1.5; }
svg rect { opacity: .35; }
svg .ours { fill: var(--ours); } svg .peer { fill: var(--peer); } svg .limit { fill: var(--limit); }
@media print { section { break-inside: avoid; } }
`
