/** What a client asked of one key of a store with single values. `value` undefined means absent. */
export type Operation =
  | { kind: 'get' }
  | { kind: 'put'; value: string }
  | { kind: 'cas'; expected: string | undefined; value: string }
  | { kind: 'delete' }

/** What it was told: `get`, `cas` and `delete` report the value found; `cas` also whether it wrote. */
export type Outcome = { found?: string | undefined; written?: boolean }

export type Call = {
  client: number
  key: string
  operation: Operation
  calledAt: number
  /** Undefined until it returns; an operation that failed with an unknown outcome never does. */
  returnedAt: number | undefined
  outcome: Outcome | undefined
}

/** Records what clients did and saw. Times are counted, not measured: each event gets the next number. */
export class History {
  readonly calls: Call[] = []
  #time = 0

  begin(client: number, key: string, operation: Operation): Call {
    const call: Call = {
      client,
      key,
      operation,
      calledAt: ++this.#time,
      returnedAt: undefined,
      outcome: undefined,
    }
    this.calls.push(call)
    return call
  }

  end(call: Call, outcome: Outcome): void {
    call.returnedAt = ++this.#time
    call.outcome = outcome
  }

  /** It certainly did not happen. */
  drop(call: Call): void {
    this.calls.splice(this.calls.indexOf(call), 1)
  }
}
