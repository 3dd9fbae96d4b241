import type { Call, Operation, Outcome } from './history.ts'

export type Violation = { key: string; calls: Call[] }

/**
 * Checks that a history is linearizable: that the operations on each key can be put in one order that agrees with real time and
 * with what each client saw (Wing and Gong's search with Lowe's memory of visited states). An operation without an answer
 * may have happened at any time after its call, or never. Values that are put must be unique per key.
 */
export function findViolation(calls: readonly Call[]): Violation | undefined {
  const byKey = new Map<string, Call[]>()
  for (const call of calls) {
    const list = byKey.get(call.key)
    if (list) list.push(call)
    else byKey.set(call.key, [call])
  }
  for (const [key, list] of byKey) {
    const relevant = dropUnseen(list)
    if (!isLinearizable(relevant)) return { key, calls: relevant }
  }
  return undefined
}

/**
 * Unanswered reads say nothing. An unanswered write whose value nobody saw may as well come last: leaving it out changes
 * nothing, because every answer tells the value it found.
 */
function dropUnseen(calls: readonly Call[]): Call[] {
  const seen = new Set<string>()
  for (const call of calls) {
    if (call.outcome?.found !== undefined) seen.add(call.outcome.found)
  }
  return calls.filter((call) => call.returnedAt !== undefined || mayMatter(call.operation, seen))
}

function mayMatter(operation: Operation, seen: ReadonlySet<string>): boolean {
  switch (operation.kind) {
    case 'get':
      return false
    case 'put':
    case 'cas':
      return seen.has(operation.value)
    case 'delete':
      return true
  }
}

type Mark = {
  call: number
  isReturn: boolean
  previous: Mark
  next: Mark | undefined
  match: Mark | undefined
}

/** The search walks a linked list of calls and returns, lifting out operations as it linearizes them. */
function isLinearizable(calls: readonly Call[]): boolean {
  const head = buildMarks(calls)
  const done = new Uint32Array(Math.ceil(calls.length / 32))
  const visited = new Set<string>()
  const stack: { mark: Mark; state: string | undefined }[] = []
  let state: string | undefined
  let at = head.next
  while (head.next !== undefined) {
    if (at !== undefined && !at.isReturn) {
      const call = calls[at.call]!
      const next = apply(state, call.operation, call.outcome)
      if (next.possible) {
        done[at.call >> 5]! |= 1 << (at.call & 31)
        const key = `${done.join()}|${next.state ?? ''}|${next.state === undefined}`
        if (!visited.has(key)) {
          visited.add(key)
          stack.push({ mark: at, state })
          state = next.state
          lift(at)
          at = head.next
          continue
        }
        done[at.call >> 5]! &= ~(1 << (at.call & 31))
      }
      at = at.next
      continue
    }
    // A return whose call is not linearized yet (or, at the end, nothing but unanswered calls): undo, or finish.
    if (at === undefined && onlyUnanswered(head, calls)) return true
    const last = stack.pop()
    if (last === undefined) return false
    state = last.state
    done[last.mark.call >> 5]! &= ~(1 << (last.mark.call & 31))
    unlift(last.mark)
    at = last.mark.next
  }
  return true
}

function onlyUnanswered(head: Mark, calls: readonly Call[]): boolean {
  for (let mark = head.next; mark !== undefined; mark = mark.next) {
    if (calls[mark.call]!.returnedAt !== undefined) return false
  }
  return true
}

function buildMarks(calls: readonly Call[]): Mark {
  const points = calls.flatMap((call, index) => [
    { time: call.calledAt, index, isReturn: false },
    ...(call.returnedAt === undefined ? [] : [{ time: call.returnedAt, index, isReturn: true }]),
  ])
  points.sort((a, b) => a.time - b.time)
  const head = { call: -1, isReturn: false, next: undefined, match: undefined } as unknown as Mark
  let last = head
  const open = new Map<number, Mark>()
  for (const point of points) {
    const mark: Mark = {
      call: point.index,
      isReturn: point.isReturn,
      previous: last,
      next: undefined,
      match: undefined,
    }
    last.next = mark
    last = mark
    if (!point.isReturn) open.set(point.index, mark)
    else open.get(point.index)!.match = mark
  }
  return head
}

function lift(mark: Mark): void {
  mark.previous.next = mark.next
  if (mark.next) mark.next.previous = mark.previous
  const { match } = mark
  if (match === undefined) return
  match.previous.next = match.next
  if (match.next) match.next.previous = match.previous
}

function unlift(mark: Mark): void {
  const { match } = mark
  if (match !== undefined) {
    match.previous.next = match
    if (match.next) match.next.previous = match
  }
  mark.previous.next = mark
  if (mark.next) mark.next.previous = mark
}

/** The model: a register that may be absent. Without an outcome every answer is possible. */
function apply(
  state: string | undefined,
  operation: Operation,
  outcome: Outcome | undefined,
): { possible: boolean; state: string | undefined } {
  const found = outcome === undefined || outcome.found === state
  switch (operation.kind) {
    case 'get':
      return { possible: found, state }
    case 'put':
      return { possible: true, state: operation.value }
    case 'delete':
      return { possible: found, state: undefined }
    case 'cas': {
      const writes = state === operation.expected
      const agrees = outcome === undefined || outcome.written === writes
      return { possible: found && agrees, state: writes ? operation.value : state }
    }
  }
}
