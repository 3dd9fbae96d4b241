import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { endProcess, identifyProcess, isAlive, processUsage, signalProcess } from './process-identity.ts'

test('a process that ended is not alive, and neither is another one with its number', async () => {
  const child = spawn('sleep', ['60'])
  await once(child, 'spawn')
  const identity = identifyProcess(child.pid!)!
  expect(isAlive(identity)).toBe(true)
  expect(isAlive({ ...identity, startTicks: identity.startTicks - 1 })).toBe(false)
  expect(signalProcess({ ...identity, startTicks: 0 }, 'SIGKILL')).toBe(false)
  await endProcess(identity, 5_000)
  expect(isAlive(identity)).toBe(false)
})

test('usage counts this very process', () => {
  const usage = processUsage(process.pid)!
  expect(usage.cpuSeconds).toBeGreaterThan(0)
  expect(usage.rssMiB).toBeGreaterThan(10)
})
