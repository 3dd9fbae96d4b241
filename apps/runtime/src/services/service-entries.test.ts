import type { PodStatus } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { readServiceEntry, readServiceKey, serviceEntries, serviceInstances } from './service-entries.ts'

const status = (more: Partial<PodStatus> = {}): PodStatus => ({
  formatVersion: 1,
  name: 'hello',
  machine: 'node1',
  uid: 'u1',
  phase: 'Running',
  ready: true,
  source: 'file',
  address: '10.88.11.2',
  service: 'web',
  ports: [
    { name: 'http', port: 80, hostPort: 8000, protocol: 'TCP' },
    { port: 9, protocol: 'UDP' },
  ],
  containers: [],
  since: '2026-01-01T00:00:00.000Z',
  ...more,
})
const machine = { id: 'node1', address: '10.77.0.11' }
const recordOf = (pod: PodStatus, at: { id: string; address: string | undefined } = machine): unknown =>
  serviceInstances([pod], at)[0]?.record

test('a pod with ports of the machine is an instance there, ready or not', () => {
  const record = {
    address: '10.77.0.11',
    scope: 'cluster',
    ports: [{ port: 8000, protocol: 'TCP', name: 'http' }],
  }
  const entries = serviceEntries(serviceInstances([status()], machine))
  expect([...entries.keys()]).toEqual(['/kiln/services/web/node1:hello'])
  expect(JSON.parse(entries.get('/kiln/services/web/node1:hello') ?? '')).toEqual({ ...record, ready: true })
  expect(recordOf(status({ ready: false, phase: 'Pending' }))).toEqual({ ...record, ready: false })
})

test('a pod without ports of the machine is an instance at its own address, for its machine only', () => {
  const pod = status({ ports: [{ port: 9, protocol: 'UDP' }] })
  expect(recordOf(pod)).toEqual({
    address: '10.88.11.2',
    ready: true,
    scope: 'machine',
    ports: [{ port: 9, protocol: 'UDP' }],
  })
  const addresses = ['10.88.11.2', 'fd00::2']
  expect(recordOf({ ...pod, addresses })).toMatchObject({ address: '10.88.11.2', addresses: ['fd00::2'] })
})

test('a pod at an address that all machines reach is an instance for all of them', () => {
  const pod = status({ ports: [{ port: 9, protocol: 'UDP' }], addresses: ['10.88.11.2', '10.244.1.5'] })
  const reached = (address: string): boolean => address.startsWith('10.244.')
  expect(serviceInstances([pod], machine, reached)[0]?.record).toEqual({
    address: '10.244.1.5',
    ready: true,
    scope: 'cluster',
    ports: [{ port: 9, protocol: 'UDP' }],
  })
})

test('a pod that ended, has no ports, or no address that anybody reaches is none', () => {
  for (const phase of ['Succeeded', 'Failed', 'Stopped', 'Refused'] as const)
    expect(recordOf(status({ phase }))).toBeUndefined()
  expect(recordOf(status({ ports: [] }))).toBeUndefined()
  expect(recordOf(status(), { ...machine, address: undefined })).toBeUndefined()
  const { address: _, ...unplaced } = status({ ports: [{ port: 9, protocol: 'UDP' }] })
  expect(recordOf(unplaced)).toBeUndefined()
})

test('entries of the store are read whoever wrote them, and what is no instance is left out', () => {
  const text = '{"address":"10.77.0.12","ports":[{"port":80}],"later":1}'
  expect(readServiceEntry('/kiln/services/web/node2:hello', text)).toEqual({
    service: 'web',
    machine: 'node2',
    pod: 'hello',
    record: {
      address: '10.77.0.12',
      ready: true,
      scope: 'cluster',
      ports: [{ port: 80, protocol: 'TCP' }],
      later: 1,
    },
  })
  for (const key of ['web', 'web/node2', 'web/node2:a:b', 'web/node2:a/c', 'We b/node2:a', '../node2:a'])
    expect(readServiceKey(`/kiln/services/${key}`), key).toBeUndefined()
  for (const bad of ['', '{}', '{"address":"x","ports":[{"port":0}]}', 'null'])
    expect(readServiceEntry('/kiln/services/web/node2:hello', bad), bad).toBeUndefined()
})
