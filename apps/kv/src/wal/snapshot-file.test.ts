import { Random, SimulatedDisk, settle, VirtualClock } from '@kiln/simulation'
import { expect, test } from 'vitest'
import type { Disk } from './disk.ts'
import {
  findSnapshot,
  listSnapshots,
  pruneSnapshots,
  type SnapshotFile,
  saveSnapshot,
  snapshotName,
} from './snapshot-file.ts'

const membership = { voters: [1n, 2n, 3n], learners: [4n] }
const context = Uint8Array.of(9, 9)
const payload = (byte: number): Uint8Array => new Uint8Array(10_000).fill(byte)

async function bytesOf(file: SnapshotFile): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  for await (const piece of file.payload()) pieces.push(piece)
  return new Uint8Array(Buffer.concat(pieces))
}

/** The disk, which notes how much was read at once. */
function noteReads(disk: Disk): { disk: Disk; reads: number[] } {
  const reads: number[] = []
  const open: Disk['open'] = async (name, options) => {
    const file = await disk.open(name, options)
    return {
      size: () => file.size(),
      read: (offset, length) => {
        reads.push(length)
        return file.read(offset, length)
      },
      write: (bytes, offset, done) => file.write(bytes, offset, done),
      sync: () => file.sync(),
      close: () => file.close(),
    }
  }
  return {
    disk: {
      list: () => disk.list(),
      open,
      rename: (names) => disk.rename(names),
      remove: (name) => disk.remove(name),
      syncDirectory: () => disk.syncDirectory(),
    },
    reads,
  }
}

function createStage(seed = 1) {
  const clock = new VirtualClock()
  const disk = new SimulatedDisk(clock, new Random(seed))
  /** Runs it to its end, or up to a power cut. */
  async function drive<Value>(promise: Promise<Value>, msMax = 100): Promise<Value | undefined> {
    let value: Value | undefined
    promise.then(
      (result) => {
        value = result
      },
      () => undefined,
    )
    for (let n = 0; n < msMax && value === undefined; n++) {
      clock.advance(1)
      await settle()
    }
    return value
  }
  const save = (index: number, byte: number, msMax?: number) =>
    drive(saveSnapshot(disk.mount(), { meta: { index, term: 2, membership }, context }, payload(byte)), msMax)
  return { disk, drive, save }
}

test('a snapshot comes back with everything that belongs to it', async () => {
  const { disk, save } = createStage()
  expect(await save(5, 1)).toBeGreaterThan(10_000)
  disk.crash()
  const { found, damaged } = await findSnapshot(disk.mount())
  expect(found?.meta).toEqual({ index: 5, term: 2, membership })
  expect(found?.context).toEqual(context)
  expect(await bytesOf(found!)).toEqual(payload(1))
  expect(damaged).toEqual([])
})

test('for a damaged snapshot the one before stands in', async () => {
  const { disk, save } = createStage()
  await save(5, 1)
  await save(9, 2)
  disk.corrupt(snapshotName(9), 5_000)
  const { found, damaged } = await findSnapshot(disk.mount())
  expect(found?.meta.index).toBe(5)
  expect(damaged).toEqual([snapshotName(9)])
})

test('a large snapshot is never in memory as a whole', async () => {
  const { disk, drive } = createStage()
  const large = new Uint8Array(5_000_000).map((_, at) => at % 251)
  await drive(saveSnapshot(disk.mount(), { meta: { index: 5, term: 2, membership }, context }, large))
  const noted = noteReads(disk.mount())
  const { found } = await findSnapshot(noted.disk)
  expect(Buffer.compare(await bytesOf(found!), large)).toBe(0)
  expect(Math.max(...noted.reads)).toBe(1 << 20)
})

test('a snapshot that the disk reads otherwise the second time is not restored', async () => {
  const { disk, save } = createStage()
  await save(5, 1)
  const { found } = await findSnapshot(disk.mount())
  disk.corrupt(snapshotName(5), 5_000)
  await expect(bytesOf(found!)).rejects.toThrow(/other bytes of snapshot-/)
})

test('a power cut while saving leaves the old snapshot or the new one, and no rubbish', async () => {
  const seen = new Set<number | undefined>()
  for (let seed = 1; seed <= 100; seed++) {
    const { disk, save } = createStage(seed)
    await save(5, 1)
    await save(9, 2, seed % 12)
    disk.crash()
    const { found, damaged } = await findSnapshot(disk.mount())
    seen.add(found?.meta.index)
    expect((await bytesOf(found!))[0]).toBe(found?.meta.index === 9 ? 2 : 1)
    expect(damaged).toEqual([])
    expect(disk.names().filter((name) => name.endsWith('.new'))).toEqual([])
  }
  expect([...seen].sort()).toEqual([5, 9])
})

test('only as many as wanted are kept', async () => {
  const { disk, save } = createStage()
  for (const index of [5, 9, 300]) await save(index, 1)
  expect(await pruneSnapshots(disk.mount(), 2)).toBe(9)
  expect(await listSnapshots(disk.mount())).toEqual([snapshotName(300), snapshotName(9)])
})
