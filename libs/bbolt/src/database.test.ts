import fc from 'fast-check'
import { expect, test } from 'vitest'
import { fnv64a } from './format.ts'
import { type Database, openDatabase } from './reader.ts'
import { type BucketEntry, type BucketSource, planDatabase, writeDatabase } from './writer.ts'

type Buckets = Record<string, [key: string, value: string][]>

function sources(content: Buckets): BucketSource[] {
  return Object.entries(content).map(([name, pairs]) => ({ name, entries: () => pairs.map(toEntry) }))
}

function toEntry([key, value]: [string, string]): BucketEntry {
  const bytes = Buffer.from(value, 'latin1')
  return { key: Buffer.from(key, 'latin1'), valueBytes: bytes.length, value: () => bytes }
}

function build(buckets: BucketSource[]): Buffer {
  const planning = planDatabase(buckets)
  let step = planning.next()
  while (!step.done) step = planning.next()
  const file = Buffer.concat([...writeDatabase(buckets, step.value)])
  expect(file.length).toBe(step.value.sizeBytes)
  return file
}

function open(bytes: Buffer): Promise<Database> {
  return openDatabase({
    sizeBytes: bytes.length,
    read: async (offset, length) => bytes.subarray(offset, offset + length),
  })
}

async function readAll(bytes: Buffer): Promise<Buckets> {
  const content: Buckets = {}
  const database = await open(bytes)
  for (const bucket of await database.buckets()) {
    const pairs: [string, string][] = []
    for await (const { key, value } of bucket.entries())
      pairs.push([key.toString('latin1'), value.toString('latin1')])
    content[bucket.name.toString()] = pairs
  }
  return content
}

const many = (count: number, valueBytes: number): [string, string][] =>
  Array.from({ length: count }, (_, at) => [`key-${String(at).padStart(8, '0')}`, 'v'.repeat(valueBytes)])

const medium: Buckets = {
  empty: [],
  keys: many(3000, 40),
  large: [
    ['a', 'x'.repeat(100_000)],
    ['b', ''],
  ],
}

test('a checksum is FNV-1a of 64 bits', () => {
  // From the authors' test vectors.
  expect(fnv64a(Buffer.from(''))).toBe(0xcbf29ce484222325n)
  expect(fnv64a(Buffer.from('foobar'))).toBe(0x85944171f73967e8n)
})

test('what is written is read: empty buckets, three levels, values over several pages', async () => {
  const content = { ...medium, deep: many(40_000, 8) }
  expect(await readAll(build(sources(content)))).toEqual(content)
})

test('any buckets are read as they were written', async () => {
  const text = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) })
  const pairs = fc
    .dictionary(
      text.filter((key) => key.length > 0),
      fc.tuple(text, fc.nat(3000)),
      { maxKeys: 60 },
    )
    .map((found) =>
      Object.entries(found)
        .map(([key, [value, more]]): [string, string] => [key, value + '.'.repeat(more)])
        .sort(([a], [b]) => (a < b ? -1 : 1)),
    )
  await fc.assert(
    fc.asyncProperty(fc.tuple(pairs, pairs), async ([first, second]) => {
      const content = { first, second }
      expect(await readAll(build(sources(content)))).toEqual(content)
    }),
    { numRuns: 60 },
  )
})

test('a source that gives other entries the second time is found out', () => {
  let call = 0
  const source: BucketSource = { name: 'b', entries: () => many(call++ === 0 ? 10 : 1000, 100).map(toEntry) }
  expect(() => build([source])).toThrow('same entries in both passes')
})

test('keys out of order and empty keys are refused', () => {
  const pairs = (keys: string[]): Buckets => ({ b: keys.map((key) => [key, '']) })
  expect(() => build(sources(pairs(['b', 'a'])))).toThrow('key order')
  expect(() => build(sources(pairs(['a', 'a'])))).toThrow('key order')
  expect(() => build(sources(pairs([''])))).toThrow('1 to 32768 bytes')
})

test('one damaged meta is made up for by the other, two are refused', async () => {
  const bytes = build(sources(medium))
  bytes[40] = bytes[40]! ^ 1
  expect(await readAll(bytes)).toEqual(medium)
  bytes[4096 + 40] = bytes[4096 + 40]! ^ 1
  await expect(open(bytes)).rejects.toMatchObject({ code: 'BBOLT_INVALID' })
  await expect(open(Buffer.from('not a database'))).rejects.toMatchObject({ code: 'BBOLT_INVALID' })
})

test('a file that is cut off is refused', async () => {
  const bytes = build(sources(medium))
  await expect(open(bytes.subarray(0, bytes.length - 4096))).rejects.toMatchObject({ code: 'BBOLT_DAMAGED' })
})

test('a branch that leads back to itself is refused', async () => {
  const bytes = build(sources({ keys: many(3000, 40) }))
  const branches = Array.from({ length: bytes.length / 4096 }, (_, id) => id).filter(
    (id) => bytes.readUInt16LE(id * 4096 + 8) === 1,
  )
  expect(branches).toHaveLength(1)
  bytes.writeBigUInt64LE(BigInt(branches[0]!), branches[0]! * 4096 + 24)
  await expect(readAll(bytes)).rejects.toThrow('is reached twice')
})

test('damage ends in a fault or in other values, never in anything else', async () => {
  const whole = build(sources({ keys: many(400, 40), other: many(3, 9000), none: [] }))
  const hits = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 })
  let refused = 0
  const check = async (places: [number, number][]): Promise<void> => {
    const bytes = Buffer.from(whole)
    for (const [at, value] of places) bytes[at] = value
    await readAll(bytes).catch((error: { code?: string }) => {
      expect(error.code).toMatch(/^BBOLT_/)
      refused++
    })
  }
  await fc.assert(fc.asyncProperty(hits, check), { numRuns: 300 })
  // Heads and elements are where it hurts.
  const heads = fc.array(
    fc.tuple(
      fc.tuple(fc.nat(whole.length / 4096 - 1), fc.nat(200)).map(([page, at]) => page * 4096 + at),
      fc.nat(255),
    ),
    { minLength: 1, maxLength: 4 },
  )
  await fc.assert(fc.asyncProperty(heads, check), { numRuns: 300 })
  expect(refused).toBeGreaterThan(50)
})
