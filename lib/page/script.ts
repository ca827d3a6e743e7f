/** Tells what charts have at the place that is pointed at. */
export const TIPS = `
const tip = document.createElement('div')
tip.className = 'tip'
tip.hidden = true
document.body.append(tip)
for (const chart of document.querySelectorAll('[data-tips]')) {
  let marks
  const show = (event) => {
    marks ??= chart.dataset.tips.split('|').map((mark) => {
      const at = mark.indexOf(' ')
      return { from: Number(mark.slice(0, at)), text: mark.slice(at + 1) }
    })
    const box = chart.getBoundingClientRect()
    const x = ((event.clientX - box.left) / box.width) * 1000
    tip.textContent = marks.findLast(({ from }) => from <= x)?.text ?? ''
    tip.hidden = tip.textContent === ''
    const room = document.documentElement.clientWidth - tip.offsetWidth - 4
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, room)) + 'px'
    const above = box.top - tip.offsetHeight - 4
    tip.style.top = (above < 4 ? box.bottom + 4 : above) + 'px'
  }
  chart.addEventListener('pointermove', show)
  chart.addEventListener('pointerdown', show)
  chart.addEventListener('pointerleave', () => { tip.hidden = true })
}
`

/** Shows only the machines whose names have what is typed. Without scripts there is nothing to type into. */
export const FILTER = `
const filter = document.querySelector('.filter')
if (filter) {
  filter.hidden = false
  filter.addEventListener('input', () => {
    const wanted = filter.value.toLowerCase()
    for (const one of document.querySelectorAll('details.machine')) {
      one.hidden = !one.querySelector('b').textContent.toLowerCase().includes(wanted)
    }
  })
}
`
