import type { History } from './history.ts'
import type { Key, Span } from './key.ts'
import { defaultSizes } from './sizes.ts'

/** Newest records of keys that follow each other. */
type Leaf = {
  /** Not above any of its keys and above all of the leaf before. */
  first: Key
  count: number
  records: Float64Array
  /** How many of them are deletions. */
  deleted: number
  /** No record of it is of a later revision. */
  revisionMax: number
}

/**
 * Hears how many keys live in a leaf, or in the rest of one, in place of a visit to each, where that is known as of a revision.
 * Answers whether that was enough.
 */
export type Tally = { revision: number; add(live: number): boolean }

/**
 * Ordered map from key to the number of its newest record in the history. A key costs the number alone, some eleven bytes as
 * leaves are not full; its bytes are those of the record.
 */
export class KeyIndex {
  readonly #history: History
  readonly #leafKeys: number
  #leaves: Leaf[]
  #size = 0
  /** Where the last search ended: the next step of a write is for the same key. */
  #found = { key: undefined as Key | undefined, leaf: 0, at: 0, isThere: false }

  constructor(history: History, leafKeys = defaultSizes.leafKeys) {
    this.#history = history
    this.#leafKeys = leafKeys
    this.#leaves = [this.#leaf('')]
  }

  /** Keys held, deleted but not yet compacted ones included. */
  get size(): number {
    return this.#size
  }

  /** The newest record of a key, -1 if there is none. */
  get(key: Key): number {
    const found = this.#search(key)
    return found.isThere ? this.#leaves[found.leaf]!.records[found.at]! : -1
  }

  /** Sets the newest record of a key; the history has it already. */
  set(key: Key, record: number): void {
    const { leaf: leafAt, at, isThere } = this.#search(key)
    const leaf = this.#leaves[leafAt]!
    if (isThere) {
      if (leaf.deleted > 0 && this.#isDeletion(leaf.records[at]!)) leaf.deleted--
      leaf.records[at] = record
      this.#note(leaf, record)
      return
    }
    this.#found.key = undefined
    this.#size++
    if (leaf.count < this.#leafKeys) {
      insert(leaf, at, record)
      this.#note(leaf, record)
    } else {
      // Keys often arrive in order: leave the left leaf nearly full then.
      const cut = at === leaf.count ? leaf.count - Math.max(1, leaf.count >> 5) : leaf.count >> 1
      const right = this.#leaf(this.#history.key(leaf.records[cut]!))
      right.records.set(leaf.records.subarray(cut, leaf.count))
      right.count = leaf.count - cut
      right.revisionMax = leaf.revisionMax
      if (leaf.deleted > 0) right.deleted = this.#deletions(right)
      leaf.deleted -= right.deleted
      leaf.count = cut
      this.#leaves.splice(leafAt + 1, 0, right)
      const [target, place] = at > cut ? [right, at - cut] : [leaf, at]
      insert(target, place, record)
      this.#note(target, record)
    }
  }

  /** Forgets a key whose newest record goes. */
  delete(key: Key): void {
    const { leaf: leafAt, at, isThere } = this.#search(key)
    if (!isThere) return
    this.#found.key = undefined
    this.#size--
    const leaf = this.#leaves[leafAt]!
    if (leaf.deleted > 0 && this.#isDeletion(leaf.records[at]!)) leaf.deleted--
    leaf.records.copyWithin(at, at + 1, leaf.count)
    leaf.count--
    this.#join(leafAt)
  }

  /**
   * Visits keys from `start` up to `end` in order, at most `visitMax`, until `visit` answers false. Answers the key to go on
   * with if it stopped at the bound: the index may change before that. It must not while it is visited. Keys that a `tally` took are
   * not visited.
   */
  scan(
    { start, end }: Span,
    visit: (newest: number) => boolean | undefined,
    visitMax = Number.POSITIVE_INFINITY,
    tally?: Tally,
  ): Key | undefined {
    let left = visitMax
    let leafAt = this.#leafOf(start)
    let at = this.#lowerBound(this.#leaves[leafAt]!, start)
    for (; leafAt < this.#leaves.length; leafAt++, at = 0) {
      const { records, count, deleted, revisionMax } = this.#leaves[leafAt]!
      const next = this.#leaves[leafAt + 1]
      const isLast = end !== undefined && (!next || next.first >= end)
      const known = tally && revisionMax <= tally.revision ? tally : undefined
      if (known && at === 0 && !isLast && known.add(count - deleted)) continue
      const stop = isLast ? this.#lowerBound(this.#leaves[leafAt]!, end) : count
      for (; at < stop; at++) {
        if (deleted === 0 && known?.add(stop - at)) break
        if (left-- === 0) return this.#history.key(records[at]!)
        if (visit(records[at]!) === false) return undefined
      }
      if (isLast) return undefined
    }
    return undefined
  }

  #search(key: Key): { leaf: number; at: number; isThere: boolean } {
    const found = this.#found
    if (found.key === key) return found
    // Keys of a range are often changed one after the other.
    const { records, count } = this.#leaves[found.leaf] ?? this.#leaves[0]!
    const next = found.key === undefined ? count : found.at + 1
    found.key = key
    if (next < count && this.#history.compareKey(records[next]!, key) === 0) {
      found.at = next
      found.isThere = true
      return found
    }
    found.leaf = this.#leafOf(key)
    const leaf = this.#leaves[found.leaf]!
    found.at = this.#lowerBound(leaf, key)
    found.isThere = found.at < leaf.count && this.#history.compareKey(leaf.records[found.at]!, key) === 0
    return found
  }

  /** The last leaf whose `first` is not above `key`. */
  #leafOf(key: Key): number {
    let low = 0
    let high = this.#leaves.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#leaves[middle]!.first <= key) low = middle
      else high = middle - 1
    }
    return low
  }

  #lowerBound({ records, count }: Leaf, key: Key): number {
    let low = 0
    let high = count
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#history.compareKey(records[middle]!, key) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Joins a leaf with its right neighbour when both fit in half a leaf; an empty one always goes. */
  #join(leafAt: number): void {
    const leaf = this.#leaves[leafAt]!
    const right = this.#leaves[leafAt + 1]
    if (right && leaf.count + right.count <= this.#leafKeys >> 1) {
      leaf.records.set(right.records.subarray(0, right.count), leaf.count)
      leaf.count += right.count
      leaf.deleted += right.deleted
      leaf.revisionMax = Math.max(leaf.revisionMax, right.revisionMax)
      this.#leaves.splice(leafAt + 1, 1)
    } else if (leaf.count === 0 && leafAt > 0) this.#leaves.splice(leafAt, 1)
  }

  #leaf(first: Key): Leaf {
    return { first, count: 0, records: new Float64Array(this.#leafKeys), deleted: 0, revisionMax: 0 }
  }

  /** A record that a leaf has now. */
  #note(leaf: Leaf, record: number): void {
    if (this.#isDeletion(record)) leaf.deleted++
    leaf.revisionMax = Math.max(leaf.revisionMax, this.#history.revision(record))
  }

  #isDeletion(record: number): boolean {
    return this.#history.version(record) === 0
  }

  #deletions({ records, count }: Leaf): number {
    let deletions = 0
    for (let at = 0; at < count; at++) if (this.#isDeletion(records[at]!)) deletions++
    return deletions
  }
}

function insert(leaf: Leaf, at: number, record: number): void {
  leaf.records.copyWithin(at + 1, at, leaf.count)
  leaf.records[at] = record
  leaf.count++
}
