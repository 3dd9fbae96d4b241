import { Fault } from '@kiln/service'
import { ConfigInvalid } from './config-invalid.ts'
import { shown } from './fetch-resource.ts'
import type { Failure } from './reporter.ts'

/** What went wrong at a stage, in the parts that a report has, and the lines to print, the reason last. */
export function describeFailure(stage: string, error: unknown): { failure: Failure; lines: string[] } {
  const problem = error instanceof ConfigInvalid ? error.problems[0] : undefined
  const path = problem?.path ?? (error as { path?: string }).path
  const position = problem && problem.line > 0 ? { line: problem.line, column: problem.column } : {}
  const message = sentence(error)
  const place = [
    ...(path === undefined ? [] : [path]),
    ...('line' in position ? [position.line, position.column] : []),
  ].join(':')
  const lines = error instanceof ConfigInvalid ? error.lines() : []
  if (!(error instanceof Fault) && error instanceof Error && error.stack) lines.push(error.stack)
  lines.push(`kiln-ignition: ${stage}: ${place === '' ? '' : `${place}: `}${message}`)
  return { failure: { stage, message, path, ...position }, lines }
}

/** Cause and remedy in one line: codes, sentences and system errors down the chain. */
function sentence(error: unknown): string {
  const parts: string[] = []
  let remedy: string | undefined
  for (let at: unknown = error, depth = 0; at !== undefined && depth < 5; depth++) {
    if (at instanceof ConfigInvalid) parts.push(`${at.code}: ${shown(at.source)}: ${at.message}`)
    else if (at instanceof Fault) parts.push(`${at.code}: ${at.message}`)
    else parts.push(at instanceof Error ? at.message || String((at as { code?: unknown }).code) : String(at))
    if (at instanceof Fault) remedy ??= at.remedy
    at = at instanceof Error ? at.cause : undefined
  }
  const text = parts.join(': ').replaceAll(/\s+/g, ' ')
  return remedy === undefined ? `${text}.` : `${text}. ${remedy[0]!.toUpperCase()}${remedy.slice(1)}.`
}
