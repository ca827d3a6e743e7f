import { type Html, html, textLines } from '../../lib/page/html.ts'
import { renderPage } from '../../lib/page/page.ts'
import { formatSize } from '../../lib/units.ts'
import { barPlot, type Row } from './plot.ts'
import { STYLE } from './report-style.ts'
import type { Failed, Measured, Results, Run } from './results.ts'
import { COLUMNS, figures, verdictWords } from './table.ts'

const TITLE = 'qcow2-backup: speed and size'

/** The whole run as one HTML page that needs nothing else, neither scripts nor files. */
export function renderReport({ machine: m, quick, cases }: Results): string {
  const measured = cases.filter((c) => 'summary' in c)
  const failed = cases.filter((c) => 'failure' in c)
  const verdicts = measured.flatMap((c) => c.verdicts)
  const met = verdicts.filter((v) => v.met).length
  const facts = [
    `${m.date.slice(0, 16).replace('T', ' ')} UTC`,
    `${m.cpu}, ${m.cores} cores, ${formatSize(m.memory)} memory`,
    `Linux ${m.kernel}, ${m.fileSystem}, load ${m.load.toFixed(2)} at the start`,
    `qemu-img ${m.qemuImg}, ${m.fio}, node ${m.node}`,
  ]
  const body = html`<h1>${TITLE}</h1>
<p class="soft">${facts.join(' · ')}</p>
<p>${met} of ${verdicts.length} limits met in ${measured.length} cases.${quick && QUICK}</p>
${failed.map(renderFailure)}
<div class="scroll">${renderTable(measured)}</div>
<p class="soft">Medians; ratios are ours to the peer's, pair by pair, so below 1 is better.
MB are 10<sup>6</sup> bytes. Peak memory and file size are those of the worst run.</p>
${measured.map(renderCase)}
${METHOD}`
  return renderPage({ title: TITLE, style: STYLE, body })
}

const QUICK = html` <b>Quick run</b>: smaller disks and few pairs; the limits are meant for a full one.`

function renderTable(cases: Measured[]): Html {
  const rows = cases.map(
    (c) => html`<tr>${figures(c).map((cell) => html`<td>${cell}</td>`)}</tr>\n`,
  )
  const head = COLUMNS.map((column) => html`<th>${column}</th>`)
  return html`<table><thead><tr>${head}</tr></thead><tbody>
${rows}</tbody></table>`
}

function renderCase(c: Measured): Html {
  const limitOf = (what: string) => c.verdicts.find((verdict) => verdict.what === what)?.most
  const row = (kind: 'ours' | 'peer', of: (run: Run) => number): Row => ({
    label: kind,
    kind,
    values: c.pairs.map((pair) => of(pair[kind])),
  })
  const both = (of: (run: Run) => number) => [row('ours', of), row('peer', of)]
  const wall = both((run) => run.wall)
  if (c.limitWalls.length > 0) wall.push({ label: 'limit', kind: 'limit', values: c.limitWalls })
  const cpu = both((run) => run.cpu)
  const peak = both((run) => run.peak / 1e6)
  const written = both((run) => run.written / 1e6)
  const plots: [string, Html][] = [
    ['Wall time', barPlot(wall, 'seconds', limitOf('wall'))],
    ['CPU time', barPlot(cpu, 'seconds')],
    ['Peak memory', barPlot(peak, 'MB', limitOf('peak memory'))],
    ['Written', barPlot(written, 'MB')],
  ]
  const { ours, peer, limit } = c.commands
  const commands = [
    `# ours\n${ours}`,
    `# peer\n${peer}`,
    ...(limit === undefined ? [] : [`# limit\n${limit}`]),
  ]
  return html`<section><h2 id="${c.name}">${c.name}: ${c.title.toLowerCase()}</h2>
<p class="soft">${c.disk}. ${c.pairs.length} pairs. Result compared and checked by qemu-img.</p>
${renderVerdicts(c)}
<div class="plots">
${plots.map(([title, svg]) => html`<div><h3>${title}</h3>${svg}</div>\n`)}</div>
<pre>${textLines(commands.join('\n'))}</pre></section>
`
}

function renderVerdicts({ verdicts }: Measured): Html {
  const rows = verdicts.map((verdict) => {
    const [what, held, mark] = verdictWords(verdict)
    const kind = verdict.met ? 'good' : 'bad'
    return html`<tr><td>${what}</td><td>${held}</td><td class="${kind}">${mark}</td></tr>`
  })
  return html`<div class="scroll"><table><tbody>${rows}</tbody></table></div>`
}

function renderFailure({ name, failure }: Failed): Html {
  return html`<p class="bad">${name} failed and has no figures: ${failure}</p>\n`
}

const METHOD = html`<h2>How it was measured</h2>
<ul>
<li>Ours and the peer run in turn, one pair after the other, after one run of each that does not
count. A line between two dots joins the runs of a pair; the bar ends at the median; the dashed
line is a limit.</li>
<li>Before each run the source is dropped from the page cache (posix_fadvise, through
<code>dd of=FILE oflag=nocache conv=notrunc,fdatasync count=0</code>). After each run the target is
removed and the file system synced, outside of the time taken.</li>
<li>Wall time runs from start to exit of the process and includes the start of node. CPU seconds
(user and system, with children) and peak resident memory (of the largest process) are what GNU time
reads from wait4. Bytes written are its count of 512 byte blocks sent to the file system
(ru_oublock), data and metadata of the target alike.</li>
<li>The storage daemon's own job is timed from the QMP command to the completion event, without the
daemon's start; its CPU, memory and writes are the daemon's, as /proc tells them. Of a server that
writes a peer's target, they are added to the peer's. A server that both read from is nobody's.</li>
<li>The result of our warm-up run is compared with the disk by <code>qemu-img compare</code> and,
where it is an image, checked by <code>qemu-img check</code>; a case with a wrong result has no
figures. Fragmentation is what <code>qemu-img check</code> says.</li>
<li>The limit moves the same bytes and looks at none of them. Of a copy from a file it is fio, reading
and writing at once with O_DIRECT; its time is that of the slower of the two jobs, without the start
of fio. Of a copy over NBD it is libnbd reading from the same socket, and writing nothing.</li>
<li><code>$DIR</code> is the directory given with <code>--dir</code>.</li>
</ul>`
