import type { FaultSpan } from './nemesis.ts'
import type { Observed, Violation } from './observed.ts'

/** How much of a run is drawn: around a violation, or its last part. */
const windowMs = 1500
const operationsMax = 4000
const colors: Record<string, string> = {
  put: '#4878cf',
  delete: '#b47cc7',
  range: '#77bb77',
  txn: '#e8a33d',
  'lease-grant': '#aaaaaa',
  'lease-keep': '#aaaaaa',
  'lease-revoke': '#888888',
}
const faultColors: Record<string, string> = {
  kill: '#d65f5f',
  pause: '#956cb4',
  partition: '#c9a227',
  disk: '#6b8e23',
}

/** A window of a run as one HTML page without scripts: a lane for each client, faults above; hovering tells what was asked and answered. */
export function timelinePage(run: {
  title: string
  summary: string
  operations: readonly Observed[]
  faults: readonly FaultSpan[]
  violations: readonly Violation[]
  endedAt: number
}): string {
  const { operations, faults, violations } = run
  const centre = violations.find(({ at }) => at > 0)?.at
  const from = Math.max(0, (centre ?? run.endedAt - windowMs) - windowMs)
  const to = (centre ?? run.endedAt - windowMs) + windowMs
  const shown = operations
    .filter(({ calledAt, returnedAt = run.endedAt }) => returnedAt >= from && calledAt <= to)
    .slice(0, operationsMax)
  const guilty = new Set(violations.flatMap(({ ids }) => ids))
  const clients = [...new Set(shown.map(({ client }) => client))].sort((a, b) => a - b)
  const width = 1600
  const lane = 22
  const top = 60
  const x = (at: number): number =>
    60 + ((Math.min(Math.max(at, from), to) - from) / (to - from)) * (width - 80)
  const bars = shown.map((operation) => {
    const { id, client, asked, calledAt, returnedAt, told, refused } = operation
    const y = top + clients.indexOf(client) * lane
    const end = x(returnedAt ?? to)
    const outcome = refused ?? (told ? JSON.stringify(told) : 'no answer: open')
    const isGuilty = guilty.has(id)
    return (
      `<rect x="${x(calledAt).toFixed(1)}" y="${y}" width="${Math.max(1.5, end - x(calledAt)).toFixed(1)}" height="${lane - 6}" ` +
      `fill="${colors[asked.kind]}" fill-opacity="${told ? 0.9 : 0.3}"${isGuilty ? ' stroke="#d00" stroke-width="3"' : ''}>` +
      `<title>${escaped(`${id} ${operation.member} ${JSON.stringify(asked)} → ${outcome}`)}</title></rect>`
    )
  })
  const shades = faults
    .filter((fault) => fault.to >= from && fault.from <= to)
    .map(
      ({ kind, member, from: began, to: ended }) =>
        `<rect x="${x(began)}" y="20" width="${Math.max(2, x(ended) - x(began))}" height="${top + clients.length * lane - 20}" fill="${faultColors[kind]}" fill-opacity="0.18"/>` +
        `<text x="${x(began) + 3}" y="34">${escaped(`${kind} ${member}`)}</text>`,
    )
  const ticks = Array.from({ length: 11 }, (_, at) => from + ((to - from) * at) / 10).map(
    (at) => `<text x="${x(at)}" y="14" text-anchor="middle">${(at / 1000).toFixed(2)} s</text>`,
  )
  const lanes = clients.map((client, at) => `<text x="4" y="${top + at * lane + 12}">client ${client}</text>`)
  const list = violations.map(({ rule, text }) => `<li><b>${escaped(rule)}</b>: ${escaped(text)}</li>`)
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>${escaped(run.title)}</title>
<style>body{font:13px sans-serif;margin:1em}svg text{font:11px sans-serif}b.k{padding:0 .4em;color:#fff}</style>
<h1>${escaped(run.title)}</h1><p>${escaped(run.summary)}</p>
<p>${Object.entries(colors)
    .map(([kind, color]) => `<b class="k" style="background:${color}">${kind}</b>`)
    .join(' ')} pale: without an answer, or refused</p>
${list.length > 0 ? `<ul>${list.join('')}</ul>` : '<p>No violations; the end of the run is shown.</p>'}
<svg width="${width}" height="${top + clients.length * lane + 10}">${[...ticks, ...shades, ...lanes, ...bars].join('\n')}</svg>
</html>
`
}

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char]!)
