import { expect, test } from 'vitest'
import { settle, VirtualClock } from './clock.ts'
import { SimulatedDisk } from './disk.ts'
import { SimulatedNetwork } from './network.ts'
import { Random } from './random.ts'

async function writeFile(disk: SimulatedDisk, clock: VirtualClock, how: { durable: boolean; sync: boolean }) {
  const mount = disk.mount()
  const file = await mount.open('f', { create: true, durable: how.durable })
  await mount.syncDirectory()
  let done = false
  file.write(new Uint8Array(4096).fill(7), 0, () => {
    done = true
  })
  clock.advance(10)
  if (how.sync) await file.sync()
  expect(done).toBe(true)
}

test('a durable write survives a power cut whole', async () => {
  for (let seed = 1; seed < 30; seed++) {
    const clock = new VirtualClock()
    const disk = new SimulatedDisk(clock, new Random(seed))
    await writeFile(disk, clock, { durable: seed % 2 === 0, sync: seed % 2 === 1 })
    disk.crash()
    expect(disk.peek('f')).toEqual(new Uint8Array(4096).fill(7))
  }
})

test('an unsynced write is kept, lost or torn', async () => {
  const kinds = new Set<string>()
  for (let seed = 1; seed < 60; seed++) {
    const clock = new VirtualClock()
    const disk = new SimulatedDisk(clock, new Random(seed))
    await writeFile(disk, clock, { durable: false, sync: false })
    disk.crash()
    const left = disk.peek('f')!.filter((byte) => byte === 7).length
    kinds.add(left === 0 ? 'lost' : left === 4096 ? 'kept' : 'torn')
  }
  expect([...kinds].sort()).toEqual(['kept', 'lost', 'torn'])
})

test('a disk that lies loses what it said was synced', async () => {
  let lost = 0
  for (let seed = 1; seed < 30; seed++) {
    const clock = new VirtualClock()
    const disk = new SimulatedDisk(clock, new Random(seed))
    disk.faults.ignoreSync = true
    await writeFile(disk, clock, { durable: true, sync: true })
    disk.crash()
    if (disk.peek('f')?.every((byte) => byte === 7) !== true) lost++
  }
  expect(lost).toBeGreaterThan(5)
})

test('what runs at a power cut never hears of the disk again', async () => {
  const clock = new VirtualClock()
  const disk = new SimulatedDisk(clock, new Random(1))
  const mount = disk.mount()
  const file = await mount.open('f', { create: true, durable: true })
  let heard = false
  file.write(new Uint8Array(10), 0, () => {
    heard = true
  })
  disk.crash()
  void mount.remove('f').then(() => {
    heard = true
  })
  clock.advance(100)
  await settle()
  expect(heard).toBe(false)
})

test('a full disk refuses to grow', async () => {
  const clock = new VirtualClock()
  const disk = new SimulatedDisk(clock, new Random(1))
  disk.faults.capacityBytes = 1000
  const file = await disk.mount().open('f', { create: true, durable: false })
  const errors: (Error | undefined)[] = []
  file.write(new Uint8Array(900), 0, (error) => errors.push(error))
  file.write(new Uint8Array(200), 900, (error) => errors.push(error))
  clock.advance(1)
  expect(errors.map((error) => (error as { code?: string } | undefined)?.code)).toEqual([undefined, 'ENOSPC'])
})

test('timers fire in the order of their time, then of their setting', () => {
  const clock = new VirtualClock()
  const fired: string[] = []
  clock.after(5, () => fired.push('b'))
  clock.after(5, () => fired.push('c'))
  clock.after(1, () => {
    fired.push('a')
    clock.after(4, () => fired.push('d'))
  })
  clock.after(3, () => fired.push('never'))()
  clock.advance(10)
  expect(fired).toEqual(['a', 'b', 'c', 'd'])
  expect(clock.now()).toBe(10)
})

test('a cut direction loses frames and the other one does not', () => {
  const clock = new VirtualClock()
  const network = new SimulatedNetwork(clock, new Random(1))
  const received: string[] = []
  for (const id of [1n, 2n]) network.attach(id, (from) => received.push(`${from}>${id}`))
  network.cut(1n, 2n)
  network.send(1n, 2n, new Uint8Array(1))
  network.send(2n, 1n, new Uint8Array(1))
  clock.advance(100)
  expect(received).toEqual(['2>1'])
  network.heal()
  network.send(1n, 2n, new Uint8Array(1))
  clock.advance(100)
  expect(received).toEqual(['2>1', '1>2'])
})
