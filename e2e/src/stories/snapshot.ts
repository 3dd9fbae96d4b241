import type { Cluster } from '../cluster.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

const name = 'story'

export const snapshot: Story = {
  name: 'snapshot',
  summary: 'three machines are saved at one moment and restored together; the cluster goes on from there',
  budgetSeconds: 120,
  timeoutSeconds: 400,
  needs: ['vms'],
  fixture: 'three-machines',
  async run(context) {
    const { signal, figure } = context
    const cluster = await context.cluster()
    const before = await cluster.store.put('/e2e/snapshot', 'before')
    figure('save', await timed(() => cluster.saveSnapshot(name)))
    await serves(cluster, signal)
    await cluster.store.put('/e2e/snapshot', 'after')

    const began = performance.now()
    figure('restore', await timed(() => cluster.restoreSnapshot(name, signal)))
    await serves(cluster, signal)
    figure('restored to first write', seconds(began))
    const found = await cluster.store.get('/e2e/snapshot')
    expect(found?.text === 'before', `what was written after the snapshot is gone: ${found?.text}`)
    expect(found.modRevision === before.revision, 'what was written before has its revision')
    const leaders = await Promise.all(cluster.machines.map((machine) => cluster.member(machine)))
    expect(new Set(leaders.map((one) => one?.leaderId)).size === 1, 'all members agree on the leader')
    await until('all machines are ready', { timeoutMs: 60_000, signal }, async () => {
      const states = [...(await cluster.statuses()).values()].map((status) => status.state)
      return states.length === cluster.machines.length && states.every((state) => state === 'ready')
        ? true
        : undefined
    })
  },
}

/** A write is acknowledged and every member answers. */
async function serves(cluster: Cluster, signal: StoryContext['signal']): Promise<void> {
  await until('the store acknowledges a write', { timeoutMs: 90_000, signal }, () =>
    cluster.store.put('/e2e/snapshot-probe', String(Date.now())),
  )
  await until('every member answers', { timeoutMs: 60_000, signal }, async () => {
    const found = await Promise.all(cluster.machines.map((machine) => cluster.member(machine)))
    return found.every((status) => status !== undefined && status.leaderId !== 0n) ? true : undefined
  })
}

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`

async function timed(act: () => Promise<void>): Promise<string> {
  const began = performance.now()
  await act()
  return seconds(began)
}
