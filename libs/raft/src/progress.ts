/**
 * What a leader knows of a follower.
 * - `probe`: where the logs agree is being found, one append at a time.
 * - `replicate`: appends are sent ahead of their acknowledgements, within the window.
 * - `snapshot`: it gets a snapshot, nothing else.
 */
export type Progress = {
  state: 'probe' | 'replicate' | 'snapshot'
  /** Highest index known to be durable there. Invariant: match < next. */
  match: number
  next: number
  /** The probe is on its way; another is sent after the next answer. */
  probing: boolean
  /** Last indexes and bytes of the appends on their way, oldest first. */
  inflight: { index: number; bytes: number }[]
  inflightBytes: number
  /** Heard from since the last check of the quorum. */
  active: boolean
  /** As it was at that check. */
  wasActive: boolean
  /** Newest heartbeat round it has answered. */
  round: number
  /** Index of the snapshot on its way. */
  pendingSnapshot: number
  /** Newest commit index it was told. */
  sentCommit: number
}

export type Window = { messagesMax: number; bytesMax: number }

export function createProgress(next: number): Progress {
  return {
    state: 'probe',
    match: 0,
    next,
    probing: false,
    inflight: [],
    inflightBytes: 0,
    active: false,
    wasActive: false,
    round: 0,
    pendingSnapshot: 0,
    sentCommit: 0,
  }
}

export function isPaused(progress: Progress, window: Window): boolean {
  switch (progress.state) {
    case 'probe':
      return progress.probing
    case 'replicate':
      return progress.inflight.length >= window.messagesMax || progress.inflightBytes >= window.bytesMax
    case 'snapshot':
      return true
  }
}

export function becomeProbe(progress: Progress): void {
  progress.next =
    progress.state === 'snapshot'
      ? Math.max(progress.match + 1, progress.pendingSnapshot + 1)
      : progress.match + 1
  progress.state = 'probe'
  progress.pendingSnapshot = 0
  clearInflight(progress)
}

export function becomeReplicate(progress: Progress): void {
  progress.state = 'replicate'
  progress.next = progress.match + 1
  progress.pendingSnapshot = 0
  clearInflight(progress)
}

export function becomeSnapshot(progress: Progress, index: number): void {
  progress.state = 'snapshot'
  progress.pendingSnapshot = index
  // The appends that told it were refused; the next one does even if there is nothing else to send.
  progress.sentCommit = 0
  clearInflight(progress)
}

/** An append up to `last` was sent. */
export function noteSent(progress: Progress, last: number, bytes: number): void {
  if (progress.state === 'replicate') {
    progress.next = last + 1
    progress.inflight.push({ index: last, bytes })
    progress.inflightBytes += bytes
  } else {
    progress.probing = true
  }
}

/** Everything up to `index` is durable there. Returns false for an old answer. */
export function noteMatch(progress: Progress, index: number): boolean {
  const moved = index > progress.match
  if (moved) progress.match = index
  progress.next = Math.max(progress.next, index + 1)
  if (moved) progress.probing = false
  let freed = 0
  while (freed < progress.inflight.length && progress.inflight[freed]!.index <= index) {
    progress.inflightBytes -= progress.inflight[freed]!.bytes
    freed++
  }
  if (freed > 0) progress.inflight.splice(0, freed)
  return moved
}

/**
 * The follower refused an append after `rejected`; `hint` is the last place where the logs may agree. Returns false
 * for an answer that was overtaken.
 */
export function noteRejected(progress: Progress, rejected: number, hint: number): boolean {
  if (rejected <= progress.match) return false
  if (progress.state === 'replicate') {
    becomeProbe(progress)
    return true
  }
  if (progress.state === 'snapshot' || progress.next - 1 !== rejected) return false
  progress.next = Math.max(Math.min(rejected, hint + 1), progress.match + 1)
  progress.probing = false
  return true
}

function clearInflight(progress: Progress): void {
  progress.probing = false
  progress.inflight = []
  progress.inflightBytes = 0
}
