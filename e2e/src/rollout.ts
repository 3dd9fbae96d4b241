import { ChannelAnswer, type MachineStatus, RebootTurn, storeKeys } from '@kiln/schemas'
import type { Cluster } from './cluster.ts'
import { until } from './waiting.ts'

/** Group of all machines of `kiln up`. */
export const group = 'default'

/** Publishes a release from a folder of the image build, signed with the cluster's key. */
export async function publish(cluster: Cluster, folder: string, signal: AbortSignal): Promise<void> {
  await cluster.kiln(['update', 'publish', '--image', folder], { signal })
}

export async function channel(cluster: Cluster): Promise<ChannelAnswer> {
  const answer = await fetch(`${cluster.bootUrl}/v1/channels/${group}`, {
    signal: AbortSignal.timeout(5_000),
  })
  return ChannelAnswer.parse(await answer.json())
}

/** Waits until the rollout of a version is halted; answers why. */
export async function halted(
  cluster: Cluster,
  version: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<string> {
  return await until(`the rollout of ${version} is halted`, options, async () => {
    const now = await channel(cluster)
    return now.version === version && now.state === 'halted' ? (now.reason ?? '') : undefined
  })
}

export async function turn(cluster: Cluster): Promise<RebootTurn | undefined> {
  const entry = await cluster.store.get(storeKeys.reboot({ group, slot: 0 }))
  return entry && RebootTurn.parse(JSON.parse(entry.text))
}

/** Waits until every machine is ready with a version and nobody has the turn. */
export async function settled(
  cluster: Cluster,
  version: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<MachineStatus[]> {
  return await until(`all machines are ready with ${version}`, options, async () => {
    const [statuses, holder] = await Promise.all([cluster.statuses(), turn(cluster)])
    const ready = [...statuses.values()].filter((one) => one.state === 'ready' && one.version === version)
    return ready.length === cluster.machines.length && !holder ? ready : undefined
  })
}
