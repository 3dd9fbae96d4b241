import type { Cluster } from './cluster.ts'
import { halted, publish, settled, turn } from './rollout.ts'
import type { StoryContext } from './story.ts'
import { expect } from './waiting.ts'

/**
 * Publishes a release that cannot become healthy and waits until the machines have told it from a good one: the
 * machine that tried it runs its old release again, the rollout is halted with a reason, the turn is free, and no other
 * machine left. Answers the reason.
 */
export async function seeFallback(
  context: StoryContext,
  cluster: Cluster,
  bad: { version: string; folder: string; timeoutMs: number },
): Promise<string> {
  const { signal, say, figure } = context
  const before = await cluster.statuses()
  const marks = cluster.machines.map((machine) => ({ machine, mark: machine.console.mark }))
  const began = performance.now()
  await publish(cluster, bad.folder, signal)
  const reason = await halted(cluster, bad.version, { timeoutMs: bad.timeoutMs, signal })
  say(`halted: ${reason}`)
  const old = [...before.values()][0]!.version
  const after = await settled(cluster, old, { timeoutMs: 180_000, signal })
  figure('fallback', `${Math.round((performance.now() - began) / 1000)} s`)

  const left = after.filter(({ id, bootId }) => before.get(id)?.bootId !== bootId)
  expect(
    left.length === 1,
    `one machine tried it, not ${left.length}: ${left.map(({ id }) => id).join(', ')}`,
  )
  const [tried] = left
  expect(before.get(tried!.id)?.generation === tried!.generation, 'it runs the installation it ran before')
  expect((await turn(cluster)) === undefined, 'the turn is free')
  for (const { machine, mark } of marks) {
    const booted = machine.console.lines.slice(mark).some((line) => line.includes('MARK:kernel '))
    expect(
      booted === (machine.name === tried!.id),
      `${machine.name} ${booted ? 'rebooted' : 'did not reboot'}`,
    )
  }
  return reason
}
