import { assert } from '@kiln/service'
import {
  bucketFlag,
  bucketHeadBytes,
  elementBytes,
  encodeMeta,
  encodePageHead,
  flags,
  keyBytesMax,
  writtenPageBytes as pageBytes,
  pageHeadBytes,
} from './format.ts'

/** An entry whose value is made only when its page is written: the sizing pass needs the length alone. */
export type BucketEntry = { key: Uint8Array; valueBytes: number; value(): Uint8Array }

/**
 * A top-level bucket. `entries` is called once a pass and must give the same entries, in the order of their keys. Before entries that are
 * not to be had at once may come what to wait for, which the passes hand out.
 */
export type BucketSource<Wait extends object = never> = {
  name: string
  entries(): Iterable<BucketEntry | Wait>
}

/** What the sizing pass found: all that the writing pass needs to know ahead. */
export type DatabasePlan = { pages: number; root: number; sizeBytes: number }

/** Pages that are handed out together. */
const pieceBytes = 64 * 1024
/** Entries sized before the caller gets a chance to do something else. */
const sliceEntries = 2048
const freelistPage = 2
const firstPage = 3

/** The sizing pass, in slices: packs the pages as `writeDatabase` will and counts them. */
export function* planDatabase<Wait extends object = never>(
  buckets: readonly BucketSource<Wait>[],
): Generator<Wait | undefined, DatabasePlan> {
  const allocator = new Allocator()
  const roots: BucketEntry[] = []
  for (const bucket of sorted(buckets)) {
    const tree = new Tree(allocator, () => undefined)
    let left = sliceEntries
    for (const entry of bucket.entries()) {
      if (!isEntry(entry)) {
        yield entry
        continue
      }
      tree.add(entry, 0)
      if (--left > 0) continue
      left = sliceEntries
      yield
    }
    roots.push(bucketEntry(bucket.name, tree.finish()))
  }
  const tree = new Tree(allocator, () => undefined)
  for (const entry of roots) tree.add(entry, bucketFlag)
  const root = tree.finish()
  return { pages: allocator.next, root, sizeBytes: allocator.next * pageBytes }
}

/** The writing pass: the whole file from its first byte to its last, in pieces of about 64 KiB. */
export function* writeDatabase<Wait extends object = never>(
  buckets: readonly BucketSource<Wait>[],
  plan: DatabasePlan,
): Generator<Uint8Array | Wait, void> {
  const allocator = new Allocator()
  let pages: Buffer[] = [headPages(plan)]
  let bytes = pages[0]!.length
  const emit: Emit = ({ id, pages: count, make }) => {
    assert(id + count <= plan.pages, 'the source gives the same entries in both passes')
    pages.push(make())
    bytes += count * pageBytes
  }
  const take = (): Buffer => {
    const piece = pages.length === 1 ? pages[0]! : Buffer.concat(pages, bytes)
    pages = []
    bytes = 0
    return piece
  }
  const roots: BucketEntry[] = []
  for (const bucket of sorted(buckets)) {
    const tree = new Tree(allocator, emit)
    for (const entry of bucket.entries()) {
      if (!isEntry(entry)) {
        yield entry
        continue
      }
      tree.add(entry, 0)
      if (bytes >= pieceBytes) yield take()
    }
    roots.push(bucketEntry(bucket.name, tree.finish()))
  }
  const tree = new Tree(allocator, emit)
  for (const entry of roots) tree.add(entry, bucketFlag)
  const root = tree.finish()
  assert(
    root === plan.root && allocator.next === plan.pages,
    'the source gives the same entries in both passes',
  )
  yield take()
}

class Allocator {
  next = firstPage
  take(count: number): number {
    const id = this.next
    this.next += count
    return id
  }
}

/** Takes a page; `make` is not called by the sizing pass. */
type Emit = (page: { id: number; pages: number; make(): Buffer }) => void
type Branch = { elements: { key: Uint8Array; page: number }[]; bytes: number; flushed: boolean }

/** One B+tree, packed from the left: a page is closed when the next entry does not fit into it. */
class Tree {
  #allocator: Allocator
  #emit: Emit
  #leaf: { entry: BucketEntry; flag: number }[] = []
  #leafBytes = pageHeadBytes
  #branches: Branch[] = []
  #last: Uint8Array | undefined

  constructor(allocator: Allocator, emit: Emit) {
    this.#allocator = allocator
    this.#emit = emit
  }

  add(entry: BucketEntry, flag: number): void {
    const { key, valueBytes } = entry
    assert(key.length > 0 && key.length <= keyBytesMax, 'a key has 1 to 32768 bytes')
    assert(this.#last === undefined || Buffer.compare(this.#last, key) < 0, 'entries come in key order')
    this.#last = key
    const size = elementBytes + key.length + valueBytes
    if (this.#leaf.length > 0 && this.#leafBytes + size > pageBytes) this.#closeLeaf()
    this.#leaf.push({ entry, flag })
    this.#leafBytes += size
  }

  /** Closes what is open and answers the root page. */
  finish(): number {
    // An empty bucket is an empty leaf.
    if (this.#leaf.length > 0 || this.#branches.length === 0) this.#closeLeaf()
    for (let level = 0; ; level++) {
      const branch = this.#branches[level]!
      const only = branch.elements[0]
      if (!branch.flushed && branch.elements.length === 1) return only!.page
      if (only) this.#closeBranch(level)
    }
  }

  #closeLeaf(): void {
    const leaf = this.#leaf
    const size = this.#leafBytes
    const { id, pages } = this.#allocate(size)
    this.#emit({ id, pages, make: () => writeLeaf(id, pages, leaf) })
    this.#leaf = []
    this.#leafBytes = pageHeadBytes
    this.#addChild(0, leaf[0]?.entry.key ?? new Uint8Array(0), id)
  }

  #addChild(level: number, key: Uint8Array, page: number): void {
    this.#branches[level] ??= { elements: [], bytes: pageHeadBytes, flushed: false }
    const branch = this.#branches[level]
    const size = elementBytes + key.length
    if (branch.elements.length >= 2 && branch.bytes + size > pageBytes) this.#closeBranch(level)
    branch.elements.push({ key, page })
    branch.bytes += size
  }

  #closeBranch(level: number): void {
    const branch = this.#branches[level]!
    const { elements } = branch
    const { id, pages } = this.#allocate(branch.bytes)
    this.#emit({ id, pages, make: () => writeBranch(id, pages, elements) })
    const { key } = elements[0]!
    branch.elements = []
    branch.bytes = pageHeadBytes
    branch.flushed = true
    this.#addChild(level + 1, key, id)
  }

  #allocate(bytes: number): { id: number; pages: number } {
    const pages = Math.ceil(bytes / pageBytes)
    return { id: this.#allocator.take(pages), pages }
  }
}

function writeLeaf(id: number, pages: number, leaf: { entry: BucketEntry; flag: number }[]): Buffer {
  const page = Buffer.alloc(pages * pageBytes)
  encodePageHead(page, { id, flags: flags.leaf, count: leaf.length, overflow: pages - 1 })
  let at = pageHeadBytes
  let data = at + leaf.length * elementBytes
  for (const { entry, flag } of leaf) {
    const value = entry.value()
    assert(value.length === entry.valueBytes, 'a value has the length it was sized with')
    page.writeUInt32LE(flag, at)
    page.writeUInt32LE(data - at, at + 4)
    page.writeUInt32LE(entry.key.length, at + 8)
    page.writeUInt32LE(value.length, at + 12)
    page.set(entry.key, data)
    page.set(value, data + entry.key.length)
    data += entry.key.length + value.length
    at += elementBytes
  }
  return page
}

function writeBranch(id: number, pages: number, elements: Branch['elements']): Buffer {
  const page = Buffer.alloc(pages * pageBytes)
  encodePageHead(page, { id, flags: flags.branch, count: elements.length, overflow: pages - 1 })
  let at = pageHeadBytes
  let data = at + elements.length * elementBytes
  for (const { key, page: child } of elements) {
    page.writeUInt32LE(data - at, at)
    page.writeUInt32LE(key.length, at + 4)
    page.writeBigUInt64LE(BigInt(child), at + 8)
    page.set(key, data)
    data += key.length
    at += elementBytes
  }
  return page
}

/** Both metas and an empty freelist: every page of the file is in use. */
function headPages({ pages, root }: DatabasePlan): Buffer {
  const head = Buffer.alloc(firstPage * pageBytes)
  for (const id of [0, 1]) {
    const meta = { pageBytes, root, sequence: 0n, freelist: BigInt(freelistPage), pages }
    // The page a transaction writes is its number modulo 2.
    encodeMeta(head.subarray(id * pageBytes), id, { ...meta, transaction: BigInt(2 - id) })
  }
  const freelist = { id: freelistPage, flags: flags.freelist, count: 0, overflow: 0 }
  encodePageHead(head.subarray(freelistPage * pageBytes), freelist)
  return head
}

function bucketEntry(name: string, root: number): BucketEntry {
  const value = Buffer.alloc(bucketHeadBytes)
  value.writeBigUInt64LE(BigInt(root))
  return { key: Buffer.from(name), valueBytes: value.length, value: () => value }
}

const isEntry = <Wait extends object>(entry: BucketEntry | Wait): entry is BucketEntry =>
  'valueBytes' in entry

const sorted = <Wait extends object>(buckets: readonly BucketSource<Wait>[]): BucketSource<Wait>[] =>
  [...buckets].sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)))
