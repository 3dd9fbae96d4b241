import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** What became of one case of the conformance data. */
export type CaseResult = {
  name: string
  outcome: 'passed' | 'failed' | 'skipped'
  /** Why it failed or was skipped. */
  detail?: string
}

/** A case's result from what is wrong with it: nothing, so passed. */
export function resultOf(name: string, wrong: string[]): CaseResult {
  return wrong.length === 0
    ? { name, outcome: 'passed' }
    : { name, outcome: 'failed', detail: wrong.join('; ') }
}

/** Data that cases refer to by name: of their own folder, else of the default one, for cases that come without it. */
export function dataFile(name: string, folders: { cases: string; fallback: string }): string {
  const own = join(folders.cases, name)
  return existsSync(own) ? own : join(folders.fallback, name)
}
