/** How a container ended. `lost` means nobody saw it: its monitor was killed or the machine went down. */
export type Exit = {
  code: number
  signal: number
  oomKilled: boolean
  lost: boolean
  finishedAtMs: number
  /** What the container itself says of its end. */
  message?: string
}

export type RestartPolicy = 'Always' | 'OnFailure' | 'Never'

/** Why a container waits, in Kubernetes' manner, with the code of the fault behind it. */
export type Waiting = { reason: WaitReason; code?: string; message?: string }
export type WaitReason = 'Creating' | 'ImageMissing' | 'StartFailed' | 'NetworkFailed' | 'BackOff'

/**
 * The life of one container. `attempt` counts starts that reached the kernel and names their exit files;
 * `failures` counts what went wrong in a row and sets the delay.
 */
export type ContainerState = { attempt: number; failures: number; restarts: number; lastExit?: Exit } & (
  | { kind: 'waiting'; waiting: Waiting; dueMs: number }
  | { kind: 'running'; startedAtMs: number }
  | { kind: 'exited' }
)

export type ContainerEvent =
  /** An attempt begins: recorded before anything is done, so that a crash in the middle is seen. */
  | { kind: 'attempted' }
  | { kind: 'started'; atMs: number }
  | { kind: 'failed'; waiting: Waiting }
  | { kind: 'exited'; exit: Exit }
  /** The operator or a new boot: forget the failures. */
  | { kind: 'reset' }

/** Kubernetes' first delay. The first restart of a container that ended comes at once. */
export const backOffFirstMs = 10_000
export const backOffMostMs = 300_000
/** A container that ran this long is considered well again. */
export const wellAfterMs = 600_000

export const created: ContainerState = {
  kind: 'waiting',
  waiting: { reason: 'Creating' },
  dueMs: 0,
  attempt: 0,
  failures: 0,
  restarts: 0,
}

/** Doubles from the first delay to five minutes; the first failure waits the shortest. */
export function backOffMs(failures: number, firstMs = backOffFirstMs): number {
  return Math.min(backOffMostMs, firstMs * 2 ** Math.min(30, Math.max(0, failures - 1)))
}

/** The next state of a container; a state of kind `waiting` is to be started when `dueMs` has come. */
export function step(
  state: ContainerState,
  event: ContainerEvent,
  policy: RestartPolicy,
  nowMs: number,
  firstMs = backOffFirstMs,
): ContainerState {
  const { attempt, failures, restarts, lastExit } = state
  const kept = { attempt, failures, restarts, ...(lastExit ? { lastExit } : {}) }
  switch (event.kind) {
    case 'attempted':
      return { ...state, attempt: attempt + 1 }
    case 'started':
      return { ...kept, kind: 'running', startedAtMs: event.atMs }
    case 'failed':
      return {
        ...kept,
        failures: failures + 1,
        kind: 'waiting',
        waiting: event.waiting,
        dueMs: nowMs + backOffMs(failures + 1, firstMs),
      }
    case 'exited':
      return afterExit(state, event.exit, { policy, nowMs, firstMs })
    case 'reset':
      if (state.kind === 'running') return { ...state, failures: 0 }
      return { ...kept, failures: 0, kind: 'waiting', waiting: { reason: 'Creating' }, dueMs: nowMs }
  }
}

function afterExit(
  state: ContainerState,
  exit: Exit,
  { policy, nowMs, firstMs }: { policy: RestartPolicy; nowMs: number; firstMs: number },
): ContainerState {
  const succeeded = exit.code === 0
  const again = policy === 'Always' || (policy === 'OnFailure' && !succeeded)
  const kept = { attempt: state.attempt, restarts: state.restarts, lastExit: exit }
  if (!again) return { ...kept, failures: 0, kind: 'exited' }
  const ranMs = state.kind === 'running' ? exit.finishedAtMs - state.startedAtMs : 0
  const failures = ranMs >= wellAfterMs ? 1 : state.failures + 1
  return {
    ...kept,
    restarts: state.restarts + 1,
    failures,
    kind: 'waiting',
    waiting: { reason: 'BackOff', message: describeExit(exit) },
    dueMs: nowMs + (failures === 1 ? 0 : backOffMs(failures - 1, firstMs)),
  }
}

export function describeExit(exit: Exit): string {
  if (exit.oomKilled) return 'was killed as it used up its memory'
  if (exit.lost) return 'ended unseen'
  return exit.signal > 0 ? `was ended by signal ${exit.signal}` : `ended with code ${exit.code}`
}

export type Phase = 'Pending' | 'Running' | 'Succeeded' | 'Failed'

/** Kubernetes' phase of a pod from its containers. */
export function phaseOf(states: ContainerState[]): Phase {
  if (states.every((state) => state.kind === 'exited'))
    return states.every((state) => state.lastExit?.code === 0) ? 'Succeeded' : 'Failed'
  if (states.some((state) => state.kind === 'running' || state.restarts > 0 || state.kind === 'exited'))
    return 'Running'
  return 'Pending'
}

/** A container that runs before the others has done its work. */
export const hasSucceeded = (state: ContainerState): boolean =>
  state.kind === 'exited' && state.lastExit?.code === 0

/** The phase with containers that run before the others: until they are done the pod is pending, and one that failed for good is the end. */
export function podPhase(init: ContainerState[], main: ContainerState[]): Phase {
  if (init.some((state) => state.kind === 'exited' && !hasSucceeded(state))) return 'Failed'
  return init.every(hasSucceeded) || main.some((state) => state.kind !== 'waiting')
    ? phaseOf(main)
    : 'Pending'
}
