import { inOnePiece, MvccStore, type RangeRequest, type Slices, ValueFetch } from '@kiln/mvcc'
import { createLog, type Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { nextTurn } from '../state/slices.ts'
import { manualClock } from '../testing/manual-clock.ts'
import { Places } from './places.ts'
import type { ScratchFile } from './scratch-file.ts'
import { ValueKeeper } from './value-keeper.ts'

/** A file in memory that can be full. */
function fakeFile(): ScratchFile & { bytes: Buffer; isFull: boolean } {
  const file = {
    bytes: Buffer.alloc(0),
    isFull: false,
    write: async (bytes: Uint8Array, at: number) => {
      if (file.isFull) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
      const size = Math.max(file.bytes.length, at + bytes.length)
      file.bytes = Buffer.concat([file.bytes, Buffer.alloc(size - file.bytes.length)])
      file.bytes.set(bytes, at)
    },
    read: async (at: number, length: number) => Buffer.from(file.bytes.subarray(at, at + length)),
    close: async () => undefined,
  }
  return file
}

const bytesMax = 64 * 1024
const lines: string[] = []

function setUp() {
  lines.length = 0
  const store = new MvccStore({ slabBytes: 16 * 1024 })
  const file = fakeFile()
  const clock = manualClock()
  const faults: Fault[] = []
  const log = { ...createLog('test', 'silent'), warn: (_fields: unknown, line: string) => lines.push(line) }
  const onFatal = (fault: Fault): void => void faults.push(fault)
  const keeper = new ValueKeeper({ memory: store.memory, file, bytesMax, clock, log: log as never, onFatal })
  return { store, file, clock, keeper, faults }
}

function fill({ store }: { store: MvccStore }, count: number): void {
  for (let at = 0; at < count; at++) {
    store.put({ key: Buffer.from(`k${at % 1000}`), value: Buffer.from(`${at}`.padEnd(300, 'v')) })
  }
}

async function valuesOf(
  { store, keeper }: { store: MvccStore; keeper: ValueKeeper },
  request: Partial<RangeRequest> = {},
): Promise<string[]> {
  const found: string[] = []
  const slices = store.rangeSlices({ key: Buffer.from('k'), rangeEnd: Buffer.from('l'), ...request })
  for (;;) {
    const step = slices.next()
    if (step.value instanceof ValueFetch) {
      await keeper.read(step.value)
      continue
    }
    const kvs = step.done ? (step.value.ok ? step.value.value.kvs : []) : step.value
    for (const kv of kvs) found.push(Buffer.from(kv.value).toString().replace(/v+$/, ''))
    if (step.done) return found
  }
}

test('values beyond the bound go to the file, and reads find them there', async () => {
  const all = setUp()
  fill(all, 2000)
  await all.keeper.room()
  expect(all.store.memory.memoryBytes).toBeLessThanOrEqual(bytesMax + bytesMax / 8)
  expect(all.store.memory.outBytes).toBeGreaterThan(500_000)
  const now = await valuesOf(all)
  expect(now.map(Number).sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, at) => 1000 + at))
  const then = await valuesOf(all, { revision: 1001 })
  expect(then.map(Number).sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, at) => at))
  expect(all.keeper.counts.reads).toBeGreaterThan(0)
  expect(all.faults).toEqual([])
})

test('a full disk leaves values in memory and is logged once a minute; later they go out', async () => {
  const all = setUp()
  all.file.isFull = true
  fill(all, 1000)
  await all.keeper.room()
  expect(all.keeper.room()).toBe(undefined)
  await all.clock.advance(30_000)
  expect(all.store.memory.outBytes).toBe(0)
  expect(all.keeper.counts.failures).toBeGreaterThan(5)
  expect(lines).toHaveLength(1)
  await all.clock.advance(40_000)
  expect(lines).toHaveLength(2)
  expect(await valuesOf(all)).toHaveLength(1000)
  all.file.isFull = false
  await all.clock.advance(2000)
  while (all.store.memory.isOver) await nextTurn()
  expect(await valuesOf(all)).toHaveLength(1000)
})

test('a value that is not what was written stops the member', async () => {
  const all = setUp()
  fill(all, 1000)
  await all.keeper.room()
  all.file.bytes[5000]! ^= 1
  await expect(valuesOf(all)).rejects.toMatchObject({ code: 'STORE_VALUES_UNREADABLE' })
  expect(all.faults[0]?.code).toBe('STORE_VALUES_UNREADABLE')
})

test('one value costs one block of the file, not its slab', async () => {
  const all = setUp()
  fill(all, 1000)
  await all.keeper.room()
  expect(await valuesOf(all, { key: Buffer.from('k1'), rangeEnd: Buffer.alloc(0) })).toEqual(['1'])
  expect(all.keeper.counts).toMatchObject({ reads: 1, readBytes: 4096 })
  const put = { key: Buffer.from('k1'), value: Buffer.from('new'), prevKv: true }
  const inMemory = (slices: Slices<unknown>) => () => inOnePiece(slices)
  expect(inMemory(all.store.putSlices(put))).toThrow('in memory')
})

test('what is given back in a file is used again, joined with its neighbours', () => {
  const places = new Places()
  const at = [places.take(4), places.take(4), places.take(4), places.take(4)]
  expect(at).toEqual([0, 4, 8, 12])
  places.give(4, 4)
  places.give(8, 4)
  expect(places.take(8)).toBe(4)
  expect(places.blocks).toBe(16)
  places.give(4, 8)
  places.give(12, 4)
  expect(places.blocks).toBe(4)
  places.give(0, 4)
  expect(places.blocks).toBe(0)
})
