import type { Entry } from '@kiln/raft'
import type { Fault, Log } from '@kiln/service'
import { Random, SimulatedDisk, settle, VirtualClock } from '@kiln/simulation'
import { expect, test } from 'vitest'
import { blockBytes } from './block.ts'
import type { Disk } from './disk.ts'
import type { RecoveredLog } from './recovery.ts'
import { clearRefill, openWal, type Wal } from './wal.ts'

const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  child: () => quiet,
}
const segmentBytes = 64 << 10

function createStage(seed = 1) {
  const clock = new VirtualClock()
  const disk = new SimulatedDisk(clock, new Random(seed))
  const faults: Fault[] = []
  /** Opens the log, moving the clock for writes that opening waits for. */
  async function open(
    mounted: Disk = disk.mount(),
  ): Promise<{ wal: Wal; recovered: RecoveredLog; refill: boolean }> {
    const opening = openWal({
      disk: mounted,
      clusterId: 1n,
      memberId: 2n,
      segmentBytes,
      log: quiet,
      onFatal: (fault) => faults.push(fault),
    })
    let settled = false
    opening.then(
      () => (settled = true),
      () => (settled = true),
    )
    for (let n = 0; n < 100 && !settled; n++) {
      clock.advance(1)
      await settle()
    }
    return opening
  }
  async function pass(ms = 50): Promise<void> {
    for (let n = 0; n < ms; n++) {
      clock.advance(1)
      await settle()
    }
  }
  return { clock, disk, faults, open, pass }
}

const entry = (index: number, term = 1, size = 10): Entry => ({
  index,
  term,
  kind: 'data',
  data: new Uint8Array(size).fill(index),
})
const entries = (from: number, to: number, term = 1, size = 10): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, at) => entry(from + at, term, size))
const state = (term: number, commit = 0) => ({ term, vote: 5n, commit })
const indexes = (log: RecoveredLog): string[] => log.entries.map(({ index, term }) => `${term}:${index}`)

test('what was acknowledged is there again, and later entries replace earlier ones', async () => {
  const { disk, open, pass } = createStage()
  const { wal } = await open()
  let done = 0
  wal.append({ entries: entries(1, 5), hardState: state(1) }, () => done++)
  wal.append({ entries: entries(3, 4, 2), hardState: state(2, 2) }, () => done++)
  await pass()
  expect(done).toBe(2)
  disk.crash()
  const { recovered, refill } = await open()
  expect(indexes(recovered)).toEqual(['1:1', '1:2', '2:3', '2:4'])
  expect(recovered.hardState).toEqual(state(2, 2))
  expect(recovered.tail?.state).toBe('clean')
  expect(refill).toBe(false)
})

test('a power cut at any moment loses nothing acknowledged, and the log can be written on', async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const { disk, open, pass, faults } = createStage(seed)
    const random = new Random(seed)
    let acknowledged = 0
    let next = 1
    for (let life = 0; life < 4; life++) {
      const { wal, recovered } = await open()
      const last = recovered.base.index + recovered.entries.length
      expect(last, `seed ${seed}`).toBeGreaterThanOrEqual(acknowledged)
      expect(recovered.tail?.state).not.toBe('damaged')
      recovered.entries.forEach(({ data }, at) => {
        expect(data[0]).toBe((recovered.base.index + 1 + at) % 256)
      })
      next = last + 1
      for (let batch = 0; batch < 12; batch++) {
        const from = next
        next += random.integer(1, 4)
        const size = random.pick([10, 500, 6000])
        const to = next - 1
        wal.append({ entries: entries(from, to, 1, size), hardState: state(1, acknowledged) }, () => {
          acknowledged = to
        })
        await pass(random.integer(0, 4))
        if (random.chance(0.2)) wal.release(acknowledged)
      }
      disk.crash()
    }
    expect(faults).toEqual([])
  }
}, 60_000)

test('segments are used again once a snapshot covers them, so the log stays bounded', async () => {
  const { disk, open, pass } = createStage()
  const { wal } = await open()
  for (let n = 0; n < 100; n++) {
    wal.append({ entries: entries(1 + n * 10, 10 + n * 10, 1, 1000), hardState: state(1) }, () => undefined)
    await pass(10)
    wal.release(n * 10)
  }
  expect(wal.bytes()).toBeLessThanOrEqual(5 * segmentBytes)
  expect(disk.usedBytes()).toBe(wal.bytes())
  disk.crash()
  const { recovered } = await open()
  expect(recovered.entries.at(-1)?.index).toBe(1000)
  expect(recovered.base.index).toBeLessThanOrEqual(990)
  expect(recovered.hardState.vote).toBe(5n)
})

test('a damaged last batch makes the member ask to be refilled, until that is done', async () => {
  const { disk, open, pass } = createStage()
  const { wal } = await open()
  wal.append({ entries: entries(1, 3), hardState: state(1) }, () => undefined)
  await pass()
  wal.append({ entries: entries(4, 6), hardState: state(1) }, () => undefined)
  await pass()
  disk.crash()
  disk.corrupt('wal-000001.log', 2 * blockBytes + 100)
  const first = await open()
  expect(first.recovered.tail?.state).toBe('damaged')
  expect(indexes(first.recovered)).toEqual(['1:1', '1:2', '1:3'])
  expect(first.refill).toBe(true)
  disk.crash()
  const second = await open()
  expect(second.recovered.tail?.state).toBe('clean')
  expect(second.refill).toBe(true)
  await clearRefill(disk.mount())
  disk.crash()
  expect((await open()).refill).toBe(false)
})

test('a bad batch before a good one is corruption, not a torn end', async () => {
  const { disk, open, pass } = createStage()
  const { wal } = await open()
  for (const from of [1, 4, 7]) {
    wal.append({ entries: entries(from, from + 2), hardState: state(1) }, () => undefined)
    await pass()
  }
  disk.crash()
  disk.corrupt('wal-000001.log', 2 * blockBytes + 100)
  await expect(open()).rejects.toMatchObject({ code: 'STORE_WAL_CORRUPT' })
})

test('a full disk stops proposals first, then the member, and loses nothing acknowledged', async () => {
  const { disk, faults, open, pass } = createStage()
  disk.faults.capacityBytes = 2.5 * segmentBytes
  const { wal } = await open()
  let acknowledged = 0
  let refusedFrom = 0
  for (let n = 1; faults.length === 0 && n < 100; n++) {
    if (wal.isFull() && refusedFrom === 0) refusedFrom = n
    wal.append({ entries: [entry(n, 1, 3000)], hardState: state(1) }, () => {
      acknowledged = n
    })
    await pass(10)
  }
  expect(refusedFrom).toBeGreaterThan(10)
  expect(acknowledged).toBeGreaterThan(refusedFrom)
  expect(faults.map((fault) => fault.code)).toEqual(['STORE_DISK_FULL'])
  disk.crash()
  disk.faults.capacityBytes = 10 * segmentBytes
  const { recovered } = await open()
  expect(recovered.entries.at(-1)?.index).toBe(acknowledged)
})

test('after room was made proposals are taken again', async () => {
  const { disk, open, pass, faults } = createStage()
  disk.faults.capacityBytes = 2.5 * segmentBytes
  const { wal } = await open()
  for (let n = 1; !wal.isFull(); n++) {
    wal.append({ entries: [entry(n, 1, 3000)], hardState: state(1) }, () => undefined)
    await pass(10)
  }
  disk.faults.capacityBytes = 10 * segmentBytes
  wal.maintain()
  await pass()
  expect(wal.isFull()).toBe(false)
  expect(faults).toEqual([])
})

test('an error of a write ends the member, and nothing is acknowledged after it', async () => {
  const { disk, open, pass, faults } = createStage()
  const mounted = disk.mount()
  let broken = false
  const flaky: Disk = {
    ...mounted,
    open: async (name, options) => {
      const file = await mounted.open(name, options)
      return {
        ...file,
        write: (bytes, offset, done) =>
          broken ? done(Object.assign(new Error('EIO'), { code: 'EIO' })) : file.write(bytes, offset, done),
      }
    },
  }
  const { wal } = await open(flaky)
  broken = true
  let done = 0
  wal.append({ entries: entries(1, 1), hardState: state(1) }, () => done++)
  broken = false
  wal.append({ entries: entries(2, 2), hardState: state(1) }, () => done++)
  await pass()
  expect(done).toBe(0)
  expect(faults.map((fault) => fault.code)).toEqual(['STORE_WAL_WRITE_FAILED'])
})

test('a write larger than a batch is split, and its end acknowledges all of it', async () => {
  const { disk, open, pass } = createStage()
  const { wal } = await open()
  let done = 0
  wal.append({ entries: entries(1, 40, 1, 4000), hardState: state(1, 40) }, () => done++)
  await pass(100)
  expect(done).toBe(1)
  disk.crash()
  const { recovered } = await open()
  expect(recovered.entries.length).toBe(40)
  expect(recovered.hardState.commit).toBe(40)
})

test('the log of another member or of a newer version is refused', async () => {
  const { disk, open, pass } = createStage()
  await open()
  await pass()
  await expect(
    openWal({
      disk: disk.mount(),
      clusterId: 1n,
      memberId: 3n,
      segmentBytes,
      log: quiet,
      onFatal: () => undefined,
    }),
  ).rejects.toMatchObject({ code: 'STORE_WRONG_MEMBER' })
})
