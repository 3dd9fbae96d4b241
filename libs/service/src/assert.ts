/** Dies with a bug report when a condition the code relies on does not hold. */
export function assert(condition: unknown, expectation: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${expectation}`)
}
