import { expect, test } from 'vitest'
import { newRecord } from './pod-record.ts'
import { machine, manifest, pass } from './testing/machine.ts'

const web = (fields: object): object => ({
  containers: [{ name: 'web', image: 'boot://hello.tar', ...fields }],
})
const check = (name: string, more: object = {}): object => ({
  exec: { command: [name] },
  periodSeconds: 1,
  ...more,
})

/** A pod on a machine whose programs fail as long as they are named in `broken`. */
function open(spec: object) {
  const host = machine()
  const broken = new Set<string>()
  host.onExec(async (_, [program = '']) => {
    if (broken.has(program)) throw new Error(`${program} says no`)
  })
  const pod = host.open(newRecord(manifest(spec), 'file', 'boot1'))
  pod.wake()
  const ran = (program: string): number =>
    host.calls.filter((call) => call.startsWith('exec') && call.endsWith(program)).length
  return { host, broken, pod, ran }
}

test('a pod is ready once its readiness probe passes, and no longer when it fails often enough in a row', async () => {
  const probe = check('ready?', { initialDelaySeconds: 2, successThreshold: 2, failureThreshold: 3 })
  const { host, broken, pod } = open(web({ readinessProbe: probe }))
  await pass(host.clock, 2500)
  expect(pod.status()).toMatchObject({ phase: 'Running', ready: false, containers: [{ ready: false }] })
  await pass(host.clock, 1000)
  expect(pod.status()).toMatchObject({ ready: true, containers: [{ ready: true }] })
  broken.add('ready?')
  await pass(host.clock, 2000)
  expect(pod.status().ready).toBe(true)
  await pass(host.clock, 1500)
  expect(pod.status().ready).toBe(false)
  expect(host.calls.filter((call) => /^(TERM|KILL)/.test(call))).toEqual([])
})

test('a container whose liveness probe fails is asked to end, killed after its grace, and started again', async () => {
  const probe = check('alive?', { failureThreshold: 2, terminationGracePeriodSeconds: 3 })
  const { host, broken, pod, ran } = open(web({ livenessProbe: probe }))
  await pass(host.clock, 1500)
  expect(pod.status().ready).toBe(true)
  broken.add('alive?')
  await pass(host.clock, 2000)
  expect(pod.status().ready).toBe(false)
  expect(host.calls.at(-1)).toBe('TERM web')
  const looks = ran('alive?')
  await pass(host.clock, 2500)
  expect([ran('alive?'), host.calls.includes('KILL web')]).toEqual([looks, false])
  broken.delete('alive?')
  await pass(host.clock, 2500)
  expect(host.calls).toContain('KILL web')
  expect(host.calls).toContain('start web 2')
  expect(pod.status()).toMatchObject({
    ready: true,
    containers: [{ restarts: 1, lastExit: { code: 137, signal: 9 } }],
  })
})

test('other probes wait for the startup probe, whose failure ends the container', async () => {
  const { host, broken, pod, ran } = open(
    web({ startupProbe: check('up?', { failureThreshold: 5 }), livenessProbe: check('alive?') }),
  )
  broken.add('up?')
  await pass(host.clock, 3500)
  expect([ran('up?'), ran('alive?'), pod.status().ready]).toEqual([4, 0, false])
  broken.delete('up?')
  await pass(host.clock, 1500)
  expect([ran('up?'), pod.status().ready]).toEqual([5, true])
  expect(ran('alive?')).toBeGreaterThan(0)

  const never = open(web({ startupProbe: check('up?', { failureThreshold: 2 }) }))
  never.broken.add('up?')
  await pass(never.host.clock, 1500)
  expect(never.host.calls).toContain('TERM web')
})

test('a hook runs after the start, before the container counts as ready, and its failure ends the container', async () => {
  const { host, broken, pod } = open(web({ lifecycle: { postStart: { exec: { command: ['warm'] } } } }))
  broken.add('warm')
  host.onTerm((name) => host.end(name, host.exit(0)))
  await pass(host.clock, 100)
  expect(host.calls).toEqual(expect.arrayContaining(['exec web warm', 'TERM web']))
  broken.delete('warm')
  await pass(host.clock, 8000)
  expect(pod.status()).toMatchObject({ ready: true, containers: [{ restarts: 1 }] })
})

test('a hook runs before the container is asked to end, and no longer than the grace', async () => {
  const lifecycle = { preStop: { exec: { command: ['drain'] } } }
  const { host, pod } = open(web({ lifecycle }))
  let drained: () => void = () => undefined
  host.onExec(() => new Promise((resolve) => (drained = resolve)))
  host.onTerm((name) => host.end(name, host.exit(0)))
  await pass(host.clock, 100)
  await pod.stop()
  await pass(host.clock, 1000)
  expect(host.calls.slice(-1)).toEqual(['exec web drain'])
  drained()
  await pass(host.clock, 5500)
  expect(host.calls.slice(-2)).toEqual(['TERM web', 'close'])

  const hanging = open(web({ lifecycle }))
  hanging.host.onExec(() => new Promise(() => undefined))
  await pass(hanging.host.clock, 100)
  await hanging.pod.stop()
  await pass(hanging.host.clock, 7000)
  expect(hanging.host.calls.slice(-2)).toEqual(['KILL web', 'close'])
})

test('a daemon that takes over a pod believes it to be ready until a probe fails', async () => {
  const first = open(web({ readinessProbe: check('ready?') }))
  await pass(first.host.clock, 1500)
  expect(first.pod.status().ready).toBe(true)
  await first.pod.leave()
  first.broken.add('ready?')
  const second = first.host.open(first.host.saved())
  second.wake()
  await pass(first.host.clock, 100)
  expect(second.status().ready).toBe(true)
  await pass(first.host.clock, 3000)
  expect(second.status().ready).toBe(false)
})

const steps = (more: object = {}): object => ({
  initContainers: ['one', 'two'].map((name) => ({ name, image: 'boot://hello.tar' })),
  ...more,
})

test('init containers run one after the other, each until it succeeds, before the containers start', async () => {
  const { host, pod } = open(steps())
  await pass(host.clock, 100)
  expect(pod.status()).toMatchObject({
    phase: 'Pending',
    ready: false,
    containers: [{ name: 'one', init: true, state: 'running' }, { name: 'two' }, { name: 'web' }],
  })
  host.end('one', host.exit(1))
  await pass(host.clock, 6500)
  host.end('one', host.exit(0))
  await pass(host.clock, 5500)
  host.end('two', host.exit(0))
  await pass(host.clock, 5500)
  expect(host.calls).toEqual(['open', 'start one 1', 'start one 2', 'start two 1', 'start web 1'])
  expect(pod.status()).toMatchObject({ phase: 'Running', ready: true })
})

test('an init container that fails for good fails the pod', async () => {
  const { host, pod } = open(steps({ restartPolicy: 'Never' }))
  await pass(host.clock, 100)
  host.end('one', host.exit(4))
  await pass(host.clock, 20_000)
  expect(host.calls).toEqual(['open', 'start one 1', 'close'])
  expect(pod.status()).toMatchObject({ phase: 'Failed', containers: [{ lastExit: { code: 4 } }, {}, {}] })
})

test('a new sandbox sees the init containers again first', async () => {
  const { host, pod } = open(steps())
  host.onTerm((name) => host.end(name, host.exit(0)))
  for (const name of ['one', 'two']) {
    await pass(host.clock, 5500)
    host.end(name, host.exit(0))
  }
  await pass(host.clock, 5500)
  expect(pod.status().ready).toBe(true)
  host.end('web', host.exit(1))
  host.killSandbox()
  await pass(host.clock, 8000)
  expect(host.calls.slice(-2)).toEqual(['open', 'start one 2'])
})
