import fc from 'fast-check'
import { expect, test } from 'vitest'
import { seededRandom } from './seeded.ts'
import { sectorBytes, VolatileWrites } from './volatile-writes.ts'

const sizeBytes = 64 * sectorBytes

function disk(bytesMax = 1024 * 1024): { durable: Buffer; cache: VolatileWrites } {
  const durable = Buffer.alloc(sizeBytes)
  const cache = new VolatileWrites(
    {
      read: (offset, length) => Buffer.from(durable.subarray(offset, offset + length)),
      write: (offset, data) => void data.copy(durable, offset),
    },
    bytesMax,
  )
  return { durable, cache }
}

const writes = fc.array(
  fc.record({
    sector: fc.integer({ min: 0, max: 56 }),
    sectors: fc.integer({ min: 1, max: 8 }),
    fill: fc.integer({ min: 1, max: 255 }),
  }),
  { maxLength: 30 },
)

test('reads see every write at once, whether it is synced or not', () => {
  fc.assert(
    fc.property(writes, fc.integer({ min: 1, max: 10 }), (list, flushEvery) => {
      const { cache } = disk()
      const expected = Buffer.alloc(sizeBytes)
      for (const [index, { sector, sectors, fill }] of list.entries()) {
        const data = Buffer.alloc(sectors * sectorBytes, fill)
        data.copy(expected, sector * sectorBytes)
        cache.write(sector * sectorBytes, data)
        if (index % flushEvery === 0) cache.flush()
      }
      expect(cache.read(0, sizeBytes).equals(expected)).toBe(true)
    }),
  )
})

test('a power cut takes nothing that was flushed', () => {
  fc.assert(
    fc.property(writes, fc.integer(), (list, seed) => {
      const { cache, durable } = disk()
      for (const { sector, sectors, fill } of list)
        cache.write(sector * sectorBytes, Buffer.alloc(sectors * sectorBytes, fill))
      cache.flush()
      const synced = Buffer.from(durable)
      expect(cache.cutPower(seededRandom(seed))).toEqual([])
      expect(durable.equals(synced)).toBe(true)
    }),
  )
})

test('a power cut leaves every sector as one of its writes or as it was', () => {
  fc.assert(
    fc.property(writes, fc.integer(), (list, seed) => {
      const { cache, durable } = disk()
      for (const { sector, sectors, fill } of list)
        cache.write(sector * sectorBytes, Buffer.alloc(sectors * sectorBytes, fill))
      cache.cutPower(seededRandom(seed))
      for (let sector = 0; sector < 64; sector++) {
        const found = durable.subarray(sector * sectorBytes, (sector + 1) * sectorBytes)
        const possible = [
          0,
          ...list.filter((w) => sector >= w.sector && sector < w.sector + w.sectors).map((w) => w.fill),
        ]
        expect(possible).toContain(found[0])
        expect(found.every((byte) => byte === found[0])).toBe(true)
      }
      expect(cache.read(0, sizeBytes).equals(durable)).toBe(true)
    }),
  )
})

test('some seed drops an unsynced write, some other keeps it, some tears it', () => {
  const kinds = new Set<string>()
  for (let seed = 0; seed < 50; seed++) {
    const { cache } = disk()
    cache.write(0, Buffer.alloc(8 * sectorBytes, 7))
    for (const fate of cache.cutPower(seededRandom(seed))) kinds.add(fate.kind)
  }
  expect([...kinds].sort()).toEqual(['dropped', 'kept', 'torn'])
})

test('a full cache writes back', () => {
  const { cache, durable } = disk(2 * sectorBytes)
  cache.write(0, Buffer.alloc(3 * sectorBytes, 9))
  expect(cache.bytes).toBe(0)
  expect(durable[0]).toBe(9)
})
