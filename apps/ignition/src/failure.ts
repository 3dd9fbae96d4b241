import { join } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'
import { ConfigInvalid } from './config-invalid.ts'
import { shown } from './fetch-resource.ts'
import { markerPaths } from './markers.ts'
import type { Failure } from './reporter.ts'
import type { Run } from './run.ts'

/** The initramfs waits after a failure, so that it can be read. */
const retry = ' To try again, restart the machine.'

/** What went wrong at a stage, in the parts that a report has, and the lines to print: the reason last, with how to retry. */
export function describeFailure(
  stage: string,
  error: unknown,
  { installing }: { installing: boolean },
): { failure: Failure; lines: string[] } {
  const problem = error instanceof ConfigInvalid ? error.problems[0] : undefined
  const path = problem?.field ?? problem?.path ?? (error as { path?: string }).path
  const position = problem && problem.line > 0 ? { line: problem.line, column: problem.column } : {}
  const message = `${sentence(error)}${installing ? retry : ''}`
  const place = [
    ...(path === undefined ? [] : [path]),
    ...('line' in position ? [position.line, position.column] : []),
  ].join(':')
  const lines = error instanceof ConfigInvalid ? error.lines() : []
  if (!(error instanceof Fault) && error instanceof Error && error.stack) lines.push(error.stack)
  const reason = `${stage}: ${place === '' ? '' : `${place}: `}${message}`
  lines.push(`kiln-ignition: ${reason}`)
  return { failure: { stage, message, reason, path, ...position }, lines }
}

/** Leaves the reason on ROOT while it is mounted, for whoever has only the disk; the next try begins with an empty ROOT. */
export async function leaveFailure(stage: string, error: unknown, run: Run): Promise<void> {
  const { lines } = describeFailure(stage, error, { installing: true })
  try {
    await atomicWrite(join(run.options.root, markerPaths.failure), `${lines.join('\n')}\n`, { mode: 0o644 })
  } catch {
    // The disk may be the reason: it is full, or gone.
  }
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
