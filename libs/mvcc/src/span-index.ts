import { contains, isSingle, type Key, type Span } from './key.ts'
import type { Watcher } from './watcher.ts'

/** The watchers of one span, and the records of it that they were not told of yet. */
export type SpanGroup = {
  readonly span: Span
  readonly watchers: Set<Watcher>
  pending: number[]
  pendingBytes: number
  /** Revision of the first pending record. */
  firstRevision: number
}

/** Above all keys, which have one byte a char. */
const noEnd = '\uffff'

/**
 * Watchers by their spans, so that those of a key are found without looking at all. Single keys are in a map; other spans are a
 * balanced tree over an ordered array that knows the largest end below each node. New spans wait outside it until they are worth a new one.
 */
export class SpanIndex {
  readonly #groups = new Map<string, SpanGroup>()
  readonly #singles = new Map<Key, SpanGroup>()
  #sorted: SpanGroup[] = []
  /** At the middle of each part of `#sorted`: the largest end in that part. */
  #ends: Key[] = []
  #fresh: SpanGroup[] = []
  /** Groups in the tree without a watcher. */
  #stale = 0

  get isEmpty(): boolean {
    return this.#groups.size === 0 && this.#singles.size === 0
  }

  add(watcher: Watcher): SpanGroup {
    const { span } = watcher
    const group = isSingle(span) ? this.#single(span) : this.#wide(span)
    group.watchers.add(watcher)
    return group
  }

  remove(watcher: Watcher, group: SpanGroup): void {
    group.watchers.delete(watcher)
    if (group.watchers.size > 0) return
    if (isSingle(group.span)) {
      this.#singles.delete(group.span.start)
      return
    }
    this.#groups.delete(nameOf(group.span))
    const at = this.#fresh.indexOf(group)
    if (at >= 0) this.#fresh.splice(at, 1)
    else if (++this.#stale > 16 + this.#sorted.length / 2) this.#build()
  }

  /** Each group whose span has the key. The groups must not change meanwhile. */
  visit(key: Key, found: (group: SpanGroup) => void): void {
    const single = this.#singles.get(key)
    if (single) found(single)
    for (const group of this.#fresh) if (contains(group.span, key)) found(group)
    if (this.#sorted.length > 0) this.#search(key, { low: 0, high: this.#sorted.length, found })
  }

  *all(): Generator<SpanGroup> {
    yield* this.#singles.values()
    yield* this.#groups.values()
  }

  #single(span: Span): SpanGroup {
    const found = this.#singles.get(span.start) ?? emptyGroup(span)
    this.#singles.set(span.start, found)
    return found
  }

  #wide(span: Span): SpanGroup {
    const name = nameOf(span)
    const found = this.#groups.get(name)
    if (found) return found
    const group = emptyGroup(span)
    this.#groups.set(name, group)
    this.#fresh.push(group)
    if (this.#fresh.length > 16 + this.#sorted.length / 128) this.#build()
    return group
  }

  #search(key: Key, part: { low: number; high: number; found: (group: SpanGroup) => void }): void {
    let { low } = part
    const { high, found } = part
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#ends[middle]! <= key) return
      this.#search(key, { low, high: middle, found })
      const group = this.#sorted[middle]!
      if (group.span.start > key) return
      if (group.watchers.size > 0 && contains(group.span, key)) found(group)
      low = middle + 1
    }
  }

  #build(): void {
    const fresh = this.#fresh.sort(byStart)
    const merged: SpanGroup[] = []
    let at = 0
    for (const group of this.#sorted) {
      while (at < fresh.length && byStart(fresh[at]!, group) < 0) merged.push(fresh[at++]!)
      if (group.watchers.size > 0) merged.push(group)
    }
    for (; at < fresh.length; at++) merged.push(fresh[at]!)
    this.#sorted = merged
    this.#fresh = []
    this.#stale = 0
    this.#ends = new Array<Key>(merged.length).fill('')
    this.#fillEnds(0, merged.length)
  }

  #fillEnds(low: number, high: number): Key {
    if (low >= high) return ''
    const middle = (low + high) >> 1
    let end = this.#sorted[middle]!.span.end ?? noEnd
    for (const other of [this.#fillEnds(low, middle), this.#fillEnds(middle + 1, high)]) {
      if (other > end) end = other
    }
    this.#ends[middle] = end
    return end
  }
}

const emptyGroup = (span: Span): SpanGroup => ({
  span,
  watchers: new Set(),
  pending: [],
  pendingBytes: 0,
  firstRevision: 0,
})
const nameOf = ({ start, end }: Span): string =>
  `${end === undefined ? '*' : start.length}:${start}${end ?? ''}`
const byStart = (a: SpanGroup, b: SpanGroup): number =>
  a.span.start < b.span.start ? -1 : a.span.start > b.span.start ? 1 : 0
