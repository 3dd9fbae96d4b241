import { describeError } from '@kiln/service'
import { isLearner, type ServiceContext } from '../api/context.ts'

/** How long a check may take before it counts as failed. */
const checkTimeoutMs = 5000

export type Check = () => Promise<string | undefined>

/** Named checks of `/livez` and `/readyz` (kv.md section 8); each answers what is wrong. */
export function checksOf(context: ServiceContext): Record<'livez' | 'readyz', Record<string, Check>> {
  const { consensus, state } = context
  const serializableRead: Check = async () => {
    state.store.range({ key: Buffer.from('health'), rangeEnd: new Uint8Array(0), limit: 1, keysOnly: true })
    return undefined
  }
  const linearizableRead: Check = async () => {
    if (consensus.leader() === 0n) return 'no leader'
    return within(consensus.readIndex(), checkTimeoutMs)
  }
  const dataCorruption: Check = async () =>
    state.alarms.has('corrupt') ? 'alarm activated: CORRUPT' : undefined
  return {
    livez: { serializable_read: serializableRead },
    readyz: {
      data_corruption: dataCorruption,
      serializable_read: serializableRead,
      linearizable_read: linearizableRead,
      non_learner: async () => (isLearner(context) ? 'local node is learner' : undefined),
    },
  }
}

/** `/health`: alarms, then a leader, then a read. */
export async function healthOf(
  context: ServiceContext,
  options: { serializable: boolean; exclude: string[] },
): Promise<{ healthy: boolean; reason: string }> {
  for (const { alarm } of context.state.alarms.list()) {
    const name = alarm.toUpperCase()
    if (!options.exclude.includes(name)) return { healthy: false, reason: `ALARM ${name}` }
  }
  const checks = checksOf(context)
  if (!options.serializable && context.consensus.leader() === 0n)
    return { healthy: false, reason: 'RAFT NO LEADER' }
  const read = options.serializable ? checks.livez['serializable_read']! : checks.readyz['linearizable_read']!
  const problem = await read()
  return problem ? { healthy: false, reason: `RANGE ERROR:${problem}` } : { healthy: true, reason: '' }
}

async function within(work: Promise<unknown>, timeoutMs: number): Promise<string | undefined> {
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve('timed out'), timeoutMs)
  })
  try {
    return await Promise.race([work.then(() => undefined, describeError), timeout])
  } finally {
    clearTimeout(timer)
  }
}
