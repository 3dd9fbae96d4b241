/** A key's value as a client was told it. */
export type Seen = { key: string; value: string }

/** What a client asked; values of puts are unique over a run, so that the history says whose they are. */
export type Asked =
  | { kind: 'put'; key: string; value: string; lease?: string }
  | { kind: 'delete'; key: string }
  | { kind: 'range'; from: string; to: string }
  /** If `compare` has this value (undefined: is missing), all of `puts` and `deletes`, else nothing; both read `from` to `to` first. */
  | {
      kind: 'txn'
      compare: { key: string; value: string | undefined }
      puts: Seen[]
      deletes: string[]
      from: string
      to: string
    }
  | { kind: 'lease-grant' | 'lease-keep' | 'lease-revoke'; lease: string }

/** What it was told. `revision` is the header's: the one a write made, or the one a read saw. */
export type Told = {
  revision: number
  /** Of ranges and transactions, in the order of keys. */
  found?: Seen[]
  /** Of a delete: whether there was something; of a transaction: whether it did what it was to do. */
  done?: boolean
}

export type Observed = {
  id: number
  client: number
  asked: Asked
  /** Milliseconds since the run began. */
  calledAt: number
  /** Undefined: no answer, and it may or may not have happened, now or later. */
  returnedAt?: number
  told?: Told
  /** It certainly did not happen. */
  refused?: string
  member: string
}

/** One change as the store recorded it. A revision has as many as its write touched, in order. */
export type Recorded = { revision: number; key: string; value: string | undefined }

export type WatchLog = { member: string; changes: Recorded[]; seenAt: number[] }

export type LeaseTerms = { ttlMs: number }

export type Violation = { rule: string; text: string; ids: number[]; at: number }
