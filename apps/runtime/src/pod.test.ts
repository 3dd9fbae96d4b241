import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { newRecord } from './pod-record.ts'
import { machine, manifest, pass } from './testing/machine.ts'

test('a pod gets its image, a sandbox and its container, and says so', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  expect(pod.status()).toMatchObject({ phase: 'Pending', ready: false })
  pod.wake()
  await pass(host.clock, 100)
  expect(host.calls).toEqual(['open', 'start web 1'])
  expect(pod.status()).toMatchObject({
    phase: 'Running',
    ready: true,
    address: '10.88.11.2',
    containers: [{ name: 'web', state: 'running', pid: 42, restarts: 0, imageId: 'sha256:2' }],
  })
})

test('a container that ends is started again in the same sandbox, at once and then after its delay, with its exit code kept', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  host.end('web', host.exit(2))
  pod.wake()
  await pass(host.clock, 100)
  host.end('web', host.exit(3))
  pod.wake()
  await pass(host.clock, 500)
  expect(pod.status()).toMatchObject({
    phase: 'Running',
    ready: false,
    containers: [{ state: 'waiting', reason: 'BackOff', restarts: 2, lastExit: { code: 3 } }],
  })
  await pass(host.clock, 1000)
  expect(host.calls).toEqual(['open', 'start web 1', 'start web 2', 'start web 3'])
  expect(pod.status()).toMatchObject({ ready: true, containers: [{ lastExit: { code: 3 } }] })
})

test('a missing image is a named state that is retried, and the pod runs once it is there', async () => {
  const host = machine()
  host.faults.image = new Fault('IMAGE_NOT_FOUND', 'no such asset')
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 3500)
  expect(pod.status()).toMatchObject({
    phase: 'Pending',
    code: 'IMAGE_NOT_FOUND',
    containers: [{ state: 'waiting', reason: 'ImageMissing', restarts: 0 }],
  })
  expect(pod.status().message).toContain('no such asset')
  expect(host.calls).toEqual([])
  delete host.faults.image
  await pass(host.clock, 10_000)
  expect(pod.status()).toMatchObject({ phase: 'Running', ready: true })
  expect(pod.status().code).toBeUndefined()
})

test('a sandbox or a container that cannot start is cleared, named and retried', async () => {
  const host = machine()
  host.faults.sandbox = new Fault('POD_NETWORK_FAILED', 'no bridge')
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 500)
  expect(host.calls).toEqual(['open', 'close'])
  expect(pod.status()).toMatchObject({
    code: 'POD_NETWORK_FAILED',
    containers: [{ reason: 'NetworkFailed' }],
  })
  delete host.faults.sandbox
  host.faults.start = new Fault('CONTAINER_EXEC_FAILED', 'exec /start: No such file or directory')
  await pass(host.clock, 1000)
  expect(pod.status()).toMatchObject({
    containers: [{ reason: 'StartFailed', code: 'CONTAINER_EXEC_FAILED' }],
  })
  delete host.faults.start
  await pass(host.clock, 10_000)
  expect(pod.status().ready).toBe(true)
})

test('stopping asks first and kills after the grace period; a stopped pod stays stopped until it is started', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  await pod.stop()
  await pass(host.clock, 4000)
  expect(host.calls.slice(2)).toEqual(['TERM web'])
  await pass(host.clock, 3000)
  expect(host.calls.slice(2)).toEqual(['TERM web', 'KILL web', 'close'])
  expect(pod.status()).toMatchObject({
    phase: 'Stopped',
    ready: false,
    containers: [{ state: 'exited', lastExit: { signal: 9 } }],
  })
  await pass(host.clock, 60_000)
  expect(host.calls).toHaveLength(5)
  await pod.start()
  await pass(host.clock, 100)
  expect(pod.status()).toMatchObject({ phase: 'Running', ready: true })
})

test('a container that ends when asked is not killed, and removal leaves nothing', async () => {
  const host = machine()
  host.onTerm((name) => host.end(name, host.exit(0)))
  const pod = host.open(newRecord(manifest(), 'api', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  pod.remove('a test wants it')
  await pass(host.clock, 6000)
  expect(host.calls.slice(2)).toEqual(['TERM web', 'close'])
  expect(host.removed()).toBe(true)
})

test('a pod that need not run again succeeds or fails, and its sandbox goes', async () => {
  for (const [code, phase] of [
    [0, 'Succeeded'],
    [7, 'Failed'],
  ] as const) {
    const host = machine()
    const pod = host.open(newRecord(manifest({ restartPolicy: 'Never' }), 'file', 'boot1'))
    pod.wake()
    await pass(host.clock, 100)
    host.end('web', host.exit(code))
    pod.wake()
    await pass(host.clock, 60_000)
    expect(host.calls).toEqual(['open', 'start web 1', 'close'])
    expect(pod.status()).toMatchObject({ phase, containers: [{ lastExit: { code } }] })
  }
})

test('another daemon takes up a running pod from its record without touching it', async () => {
  const host = machine()
  const first = host.open(newRecord(manifest(), 'file', 'boot1'))
  first.wake()
  await pass(host.clock, 100)
  await first.leave()
  const second = host.open(host.saved())
  second.wake()
  await pass(host.clock, 20_000)
  expect(host.calls).toEqual(['open', 'start web 1'])
  expect(second.status()).toMatchObject({ ready: true, containers: [{ pid: 42, restarts: 0 }] })
})

test('an exit while no daemon was there is found and counted', async () => {
  const host = machine()
  const first = host.open(newRecord(manifest(), 'file', 'boot1'))
  first.wake()
  await pass(host.clock, 100)
  await first.leave()
  host.end('web', host.exit(9))
  const second = host.open(host.saved())
  second.wake()
  await pass(host.clock, 2000)
  expect(second.status()).toMatchObject({ ready: true, containers: [{ restarts: 1, lastExit: { code: 9 } }] })
})

test('after a reboot the pod starts anew without waiting, and what ran is counted as ended', async () => {
  const host = machine()
  const first = host.open(newRecord(manifest(), 'file', 'boot1'))
  first.wake()
  await pass(host.clock, 100)
  await first.leave()
  host.running.clear()
  host.killSandbox()
  const second = host.open(host.saved(), 'boot2')
  second.wake()
  await pass(host.clock, 100)
  expect(second.status()).toMatchObject({
    ready: true,
    containers: [{ restarts: 1, lastExit: { code: 255 } }],
  })
})

test('a sandbox that dies takes its containers along, and both come back', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  host.killSandbox()
  host.end('web', host.exit(137, 9))
  pod.wake()
  await pass(host.clock, 5000)
  expect(host.calls).toEqual(['open', 'start web 1', 'close', 'open', 'start web 2'])
  expect(pod.status().ready).toBe(true)
})

test('a crash between the record and the start is one lost attempt, not a pod that hangs', async () => {
  const host = machine()
  const record = newRecord(manifest(), 'file', 'boot1')
  record.generation = 1
  record.unit = 'kiln-pod-hello-1'
  record.containers['web'] = {
    state: { kind: 'running', startedAtMs: 0, attempt: 1, failures: 0, restarts: 0 },
  }
  const pod = host.open(record)
  pod.wake()
  await pass(host.clock, 3000)
  expect(host.calls).toEqual(['close', 'open', 'start web 2'])
  expect(pod.status().ready).toBe(true)
})

test('a sandbox that a crash left without its network is closed and opened again before anything runs in it', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  expect(host.saved()).toMatchObject({ networks: { builtIn: true, cni: [] }, address: '10.88.11.2' })
  expect(host.saved().connecting).toBeUndefined()
  await pod.leave()
  // As it is written before the sandbox is started.
  const record = { ...host.saved(), connecting: true as const }
  host.running.clear()
  const later = host.open(record)
  later.wake()
  await pass(host.clock, 5000)
  expect(host.calls.slice(2)).toEqual(['close', 'open', 'start web 2'])
  expect(later.status()).toMatchObject({ phase: 'Running', ready: true })
  expect(host.saved().connecting).toBeUndefined()
})

test('a pod without networks takes no address', async () => {
  const host = machine()
  const without = manifest()
  without.metadata.annotations['kiln.dev/networks'] = 'none'
  const pod = host.open(newRecord(without, 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  expect(pod.status().ready).toBe(true)
  expect(pod.status().address).toBeUndefined()
})

test('a pod that is ended for a reboot has its grace, is not stopped, and runs again in the next boot whatever its code was', async () => {
  for (const restartPolicy of ['Always', 'OnFailure']) {
    const host = machine()
    const pod = host.open(newRecord(manifest({ restartPolicy }), 'file', 'boot1'))
    pod.wake()
    await pass(host.clock, 100)
    pod.suspend(60)
    await pass(host.clock, 4000)
    expect(host.calls.slice(2)).toEqual(['TERM web'])
    expect(pod.running).toBe(true)
    host.end('web', host.exit(0))
    pod.wake()
    await pass(host.clock, 20_000)
    expect(host.calls.slice(2)).toEqual(['TERM web', 'close'])
    expect(pod.running).toBe(false)
    await pod.leave()
    const next = host.open(host.saved(), 'boot2')
    next.wake()
    await pass(host.clock, 500)
    expect(next.status()).toMatchObject({ phase: 'Running', ready: true })
  }
})

test('a container that does not end for a reboot is killed after the shorter of both graces', async () => {
  const host = machine()
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  pod.suspend(2)
  await pass(host.clock, 1900)
  expect(host.calls.slice(2)).toEqual(['TERM web'])
  await pass(host.clock, 300)
  expect(host.calls.slice(2)).toContain('KILL web')
})

test('a machine that stays has its pods back at once, but not those that were stopped or had done their work', async () => {
  const host = machine()
  host.onTerm((name) => host.end(name, host.exit(0)))
  const pod = host.open(newRecord(manifest(), 'file', 'boot1'))
  pod.wake()
  await pass(host.clock, 100)
  pod.suspend(60)
  await pass(host.clock, 100)
  pod.wake()
  await pass(host.clock, 100)
  expect(pod.running).toBe(false)
  await pod.resume()
  await pass(host.clock, 200)
  expect(pod.status()).toMatchObject({ phase: 'Running', ready: true })
  pod.suspend(60)
  await pass(host.clock, 100)
  pod.wake()
  await pass(host.clock, 100)
  expect(pod.running).toBe(false)
  await pod.stop()
  await pod.resume()
  await pass(host.clock, 20_000)
  expect(pod.status()).toMatchObject({ phase: 'Stopped', ready: false })

  const other = machine()
  const done = other.open(newRecord(manifest({ restartPolicy: 'OnFailure' }), 'file', 'boot1'))
  done.wake()
  await pass(other.clock, 100)
  other.end('web', other.exit(0))
  done.wake()
  await pass(other.clock, 500)
  done.suspend(60)
  await pass(other.clock, 500)
  await done.resume()
  await pass(other.clock, 20_000)
  expect(done.status()).toMatchObject({ phase: 'Succeeded' })
  expect(other.calls.filter((call) => call.startsWith('start'))).toHaveLength(1)
})
