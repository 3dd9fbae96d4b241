/** Dies with a bug report: going on with a broken invariant could lose acknowledged data. */
export function assert(condition: unknown, expectation: string): asserts condition {
  if (!condition) throw new Error(`raft invariant broken: ${expectation}`)
}
