export type Verdict = { kind: 'pass' | 'fail' | 'skip'; name: string; why: string }

/** A line of oci-runtime.sh as a verdict; a skip that is not in `skips`, with its reason, is a failure. */
export function readVerdict(line: string, skips: Readonly<Record<string, string>>): Verdict | undefined {
  const [, word, name = '', why = ''] = /^(PASS|FAIL|SKIP) ([a-z0-9_]+)[: ]*(.*)$/.exec(line) ?? []
  if (!word) return undefined
  if (word !== 'SKIP') return { kind: word === 'PASS' ? 'pass' : 'fail', name, why }
  const reason = Object.hasOwn(skips, name) ? skips[name] : undefined
  return reason === undefined
    ? { kind: 'fail', name, why: `skipped without being listed ${why}` }
    : { kind: 'skip', name, why: reason }
}
