import type { Key, Span } from './key.ts'

/** Keys in a block before it is split; a lookup is two binary searches, an insert moves at most this many slots. */
const blockMax = 512

/** Sorted keys with the newest record of each. Parallel arrays: no object a key. */
type Block = { keys: Key[]; newest: number[] }

/** Ordered map from key to the number of its newest record in the history. */
export class KeyIndex {
  #blocks: Block[] = [{ keys: [], newest: [] }]
  #size = 0

  /** Keys held, deleted but not yet compacted ones included. */
  get size(): number {
    return this.#size
  }

  get(key: Key): number | undefined {
    const block = this.#blocks[this.#blockOf(key)]!
    const at = lowerBound(block.keys, key)
    return block.keys[at] === key ? block.newest[at] : undefined
  }

  /** Sets the newest record of a key and returns the one it had. */
  set(key: Key, record: number): number | undefined {
    const blockAt = this.#blockOf(key)
    const block = this.#blocks[blockAt]!
    const at = lowerBound(block.keys, key)
    if (block.keys[at] === key) {
      const before = block.newest[at]
      block.newest[at] = record
      return before
    }
    block.keys.splice(at, 0, key)
    block.newest.splice(at, 0, record)
    this.#size++
    if (block.keys.length > blockMax) {
      // Keys often arrive in order: leave the left block nearly full then.
      const cut = at === block.keys.length - 1 ? blockMax - 16 : blockMax >> 1
      const right = { keys: block.keys.splice(cut), newest: block.newest.splice(cut) }
      this.#blocks.splice(blockAt + 1, 0, right)
    }
    return undefined
  }

  /** Visits the span in key order until `visit` answers false. The index must not change meanwhile. */
  scan(span: Span, visit: (key: Key, newest: number) => boolean | undefined): void {
    let blockAt = this.#blockOf(span.start)
    let at = lowerBound(this.#blocks[blockAt]!.keys, span.start)
    for (; blockAt < this.#blocks.length; blockAt++, at = 0) {
      const { keys, newest } = this.#blocks[blockAt]!
      for (; at < keys.length; at++) {
        const key = keys[at]!
        if (span.end !== undefined && key >= span.end) return
        if (visit(key, newest[at]!) === false) return
      }
    }
  }

  /** Keeps the keys for which `keep` answers true, visited in key order. */
  filter(keep: (key: Key, newest: number) => boolean): void {
    const blocks: Block[] = []
    this.#size = 0
    for (const { keys, newest } of this.#blocks) {
      let kept = 0
      for (let at = 0; at < keys.length; at++) {
        if (!keep(keys[at]!, newest[at]!)) continue
        keys[kept] = keys[at]!
        newest[kept++] = newest[at]!
      }
      if (kept === 0) continue
      keys.length = kept
      newest.length = kept
      this.#size += kept
      const last = blocks.at(-1)
      if (last && last.keys.length + kept <= blockMax / 2) {
        last.keys.push(...keys)
        last.newest.push(...newest)
      } else blocks.push({ keys, newest })
    }
    this.#blocks = blocks.length > 0 ? blocks : [{ keys: [], newest: [] }]
  }

  /** The last block whose first key is not above `key`, else the first. */
  #blockOf(key: Key): number {
    let low = 0
    let high = this.#blocks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.#blocks[middle]!.keys[0]! <= key) low = middle
      else high = middle - 1
    }
    return low
  }
}

function lowerBound(keys: Key[], key: Key): number {
  let low = 0
  let high = keys.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (keys[middle]! < key) low = middle + 1
    else high = middle
  }
  return low
}
