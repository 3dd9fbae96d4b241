/** Tells the proposals of this run of a member from those of its earlier runs and of others. */
export function drawOrigin(random: () => number): bigint {
  const half = (): bigint => BigInt(Math.floor(random() * 2 ** 32))
  return (half() << 32n) | half()
}

/**
 * Where the numbers of proposals, reads, requests and transfers of this run begin. A process that stood still may answer, when it goes
 * on, what an earlier run of this member had sent: no number of ours may mean the same.
 */
export function drawNumber(random: () => number): number {
  return Math.floor(random() * 2 ** 40)
}
