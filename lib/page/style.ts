/** The tokens of colour in the light, which is also what is printed. */
const LIGHT = `--ink: #1b2230; --soft: #5a6372; --paper: #fff; --wash: #f1f3f6; --edge: #dde1e8;
  --accent: #2f62dc; --deep: #173a94; --tint: #bccdf8; --zero: #aab2bf; --good: #157a3c; --bad: #b3202c; --warn: #8a5a00;`

const DARK = `--ink: #e5e8ee; --soft: #9ea7b6; --paper: #13161c; --wash: #1b2029; --edge: #313947;
  --accent: #7399fb; --deep: #b9ccff; --tint: #34477f; --zero: #626d7e; --good: #58c983; --bad: #ff7d7d; --warn: #e3b04b;`

/** Rules that all pages share: light and dark, and nothing that is fetched. */
export const STYLE = `
:root { color-scheme: light dark; ${LIGHT} }
@media (prefers-color-scheme: dark) { :root { ${DARK} } }
@media print { :root { color-scheme: light; ${LIGHT} } }
* { box-sizing: border-box; }
html { font-size: 93.75%; }
body { font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  color: var(--ink); background: var(--paper); max-width: 72rem; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; font-weight: 650; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .4rem; font-weight: 650; }
h3 { font-size: .95rem; margin: 1rem 0 .2rem; font-weight: 600; }
p, ul { margin: .4rem 0; max-width: 60rem; }
.soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .3rem .65rem; border-bottom: 1px solid var(--edge); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; vertical-align: bottom;
  white-space: normal; }
th:first-child, td:first-child { text-align: left; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); } svg .grid { stroke: var(--edge); }
`
