import { isolation } from '@kiln/vm'
import type { Cluster, ClusterMachine } from '../cluster.ts'
import { StoreWriter } from '../store-writer.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

/** Writes that must be acknowledged after a fault before the story goes on. */
const progress = 20

export const lostLeader: Story = {
  name: 'cluster',
  summary: 'the store loses its leader by partition and by power-off; nothing acknowledged is lost',
  budgetSeconds: 420,
  timeoutSeconds: 1_200,
  needs: ['vms'],
  fixture: 'three-machines',
  async run(context) {
    const { figure, signal, say } = context
    const cluster = await context.cluster()
    context.onEnd(() => cluster.faults([]))
    const writer = new StoreWriter(cluster.store, '/e2e/cluster/')
    context.onEnd(() => writer.stop())
    await moreWrites(writer, signal)

    const cut = await leaderOf(cluster, cluster.machines, signal)
    say(`cutting off the leader ${cut.name}`)
    await cluster.faults(isolation(cut.name))
    const rest = cluster.machines.filter((machine) => machine !== cut)
    const partition = performance.now()
    const second = await leaderOf(cluster, rest, signal)
    figure('new leader after a partition', seconds(partition))
    await moreWrites(writer, signal)
    const alone = cluster.storeAt([cut.endpoint])
    const cutOff = await alone.put('/e2e/cut-off', 'must not be acknowledged').then(
      () => true,
      () => false,
    )
    alone.close()
    expect(!cutOff, `${cut.name} acknowledged a write without a majority`)
    await cluster.faults([])
    await caughtUp(cluster, cut, signal)

    say(`pulling the plug of the leader ${second.name}`)
    await cluster.pullPlug(second.name)
    const others = cluster.machines.filter((machine) => machine !== second)
    const powerOff = performance.now()
    await leaderOf(cluster, others, signal)
    figure('new leader after a power-off', seconds(powerOff))
    await moreWrites(writer, signal)
    const off = second.console.mark
    await cluster.switchOn(second.name)
    await second.console.waitFor(/MARK:ready /, { timeoutMs: 600_000, since: off, signal })
    await caughtUp(cluster, second, signal)

    const verdict = await writer.finish()
    figure('acknowledged', `${verdict.acknowledged}, lost ${verdict.lost.length}`)
    figure('longest gap', `${(verdict.longestGapMs / 1000).toFixed(1)} s`)
    expect(verdict.lost.length === 0, `acknowledged writes are lost: ${verdict.lost.slice(0, 5).join(', ')}`)
  },
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`

async function moreWrites(writer: StoreWriter, signal: StoryContext['signal']): Promise<void> {
  const wanted = writer.count + progress
  await until(
    'writes are acknowledged',
    { timeoutMs: 90_000, signal },
    () => writer.count >= wanted || undefined,
  )
}

async function leaderOf(
  cluster: Cluster,
  among: readonly ClusterMachine[],
  signal: AbortSignal,
): Promise<ClusterMachine> {
  return await until('the store has a leader', { timeoutMs: 90_000, signal }, async () => {
    const name = await cluster.leader(among)
    return name === undefined ? undefined : cluster.machine(name)
  })
}

/** The member has everything that the others had when this was asked, and answers it itself. */
async function caughtUp(cluster: Cluster, machine: ClusterMachine, signal: AbortSignal): Promise<void> {
  const mark = await cluster.store.put('/e2e/catch-up', `for ${machine.name} ${Date.now()}`)
  const alone = cluster.storeAt([machine.endpoint])
  try {
    await until(`${machine.name} catches up`, { timeoutMs: 120_000, signal }, async () => {
      const found = await alone.get('/e2e/catch-up', { serializable: true })
      return found && found.modRevision >= mark.revision ? true : undefined
    })
  } finally {
    alone.close()
  }
}
