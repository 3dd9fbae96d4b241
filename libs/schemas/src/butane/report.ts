import type { ButaneProblem } from './translate.ts'

const contextLines = 2
const colours = { error: '\u001b[1;31m', warning: '\u001b[1;33m', blue: '\u001b[1;34m', reset: '\u001b[0m' }

/** The one-line form of a finding. */
export function describeButaneProblem({ severity, path, line, column, message }: ButaneProblem): string {
  const place = line === 0 ? '' : `line ${line} col ${column}`
  const at = [path === '$' ? '' : path, place].filter((part) => part !== '').join(', ')
  return at === '' ? `${severity}: ${message}` : `${severity} at ${at}: ${message}`
}

/** A finding with the lines around it, and what it is about underlined. */
export function excerptButaneProblem(
  problem: ButaneProblem,
  about: { fileName: string; lines: readonly string[]; colour: boolean },
): string {
  const { lines, fileName } = about
  const { line, column } = problem
  const text = lines[line - 1]
  const characters = [...(text ?? '')]
  if (text === undefined || column > characters.length) return describeButaneProblem(problem)
  const paint = (part: string, colour: keyof typeof colours): string =>
    about.colour ? `${colours[colour]}${part}${colours.reset}` : part
  const first = Math.max(1, line - contextLines)
  const last = Math.min(lines.length, line + contextLines)
  const width = String(last).length
  const gutter = ` ${' '.repeat(width)} |`
  const section = problem.path === '$' ? '' : `[${problem.path}]`
  const report = [
    `${paint(problem.severity, problem.severity)}${section}:`,
    `  ${paint('-->', 'blue')} ${fileName}:${line}:${column}`,
    gutter,
  ]
  for (let number = first; number <= last; number++) {
    report.push(` ${paint(String(number).padStart(width), 'blue')} | ${lines[number - 1]}`)
    if (number !== line) continue
    const rest = characters.slice(column - 1)
    const end = rest.findIndex((character) => /\s/.test(character))
    const carets = '^'.repeat(end < 0 ? rest.length : end)
    report.push(`${gutter} ${' '.repeat(column - 1)}${paint(carets, 'blue')} ${problem.message}`)
  }
  return [...report, gutter].join('\n')
}
