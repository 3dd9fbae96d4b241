import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { expect, test } from 'vitest'
import { checkDisk, checkMemory, checkPort, findProgram, freePorts, missingMachinePackages } from './host.ts'

test('more memory than any host has is refused with what is there', () => {
  expect(() => checkMemory(1_000_000_000)).toThrow(expect.objectContaining({ code: 'MEMORY_SHORT' }))
  expect(() => checkMemory(1)).not.toThrow()
})

test('more disk than any host has is refused', () => {
  expect(() => checkDisk(tmpdir(), 1_000_000_000_000)).toThrow(
    expect.objectContaining({ code: 'DISK_SHORT' }),
  )
  expect(() => checkDisk(tmpdir(), 0)).not.toThrow()
})

test('a port somebody listens on is refused, with its purpose', async () => {
  const taken = createServer()
  const port = await new Promise<number>((resolve) => {
    taken.listen(0, '127.0.0.1', () => resolve((taken.address() as { port: number }).port))
  })
  await expect(checkPort(port, 'the boot server')).rejects.toMatchObject({
    code: 'PORT_TAKEN',
    message: `port ${port} for the boot server is taken`,
  })
  await new Promise((resolve) => taken.close(resolve))
  await checkPort(port, 'the boot server')
})

test('free ports are different ones', async () => {
  const ports = await freePorts(4)
  expect(new Set(ports).size).toBe(4)
})

test('a host without QEMU names the package that brings it', () => {
  expect(missingMachinePackages('/nonexistent')).toContain('qemu-system-x86')
  expect(findProgram('sh', '/nonexistent::/bin')).toBe('/bin/sh')
  expect(findProgram('no-such-program', '/bin')).toBeUndefined()
})
