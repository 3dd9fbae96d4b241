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

/**
 * Exit code of a runner: 1 when a case failed, 2 when a folder was named (`asked`) that holds no case, for a mistyped
 * path proves nothing. Without one the shared cases count, which a copy of the repository may lack.
 */
export function exitCodeOf(
  counts: { passed: number; failed: number; skipped: number },
  asked: string | undefined,
): 0 | 1 | 2 {
  if (counts.failed > 0) return 1
  return asked !== undefined && counts.passed + counts.skipped === 0 ? 2 : 0
}
