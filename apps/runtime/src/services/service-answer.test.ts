import type { Answer, Question } from 'dns-packet'
import { expect, test } from 'vitest'
import { answerQuestion, instancesMax, type ServiceAnswer } from './service-answer.ts'
import { ServiceDirectory } from './service-directory.ts'
import type { ServiceInstance } from './service-entries.ts'

const instance = (
  at: string,
  record: Partial<ServiceInstance['record']> = {},
  service = 'web',
): ServiceInstance => {
  const [machine = '', pod = ''] = at.split(':')
  const ports = [{ name: 'http', port: 8000, protocol: 'TCP' as const }]
  return {
    service,
    machine,
    pod,
    record: { address: '10.77.0.11', ready: true, scope: 'cluster', ports, ...record },
  }
}

function setUp() {
  const directory = new ServiceDirectory('node1')
  directory.setOwn([
    instance('node1:a'),
    instance('node1:local', { address: '10.88.11.9', scope: 'machine' }, 'local'),
  ])
  directory.replace([
    instance('node2:b', { address: '10.77.0.12', addresses: ['fd00::12'] }),
    instance('node2:c', { address: '10.77.0.12', ports: [{ port: 53, protocol: 'UDP' }] }),
    instance('node3:d', { address: '10.77.0.13', ready: false }),
    instance('node3:only', { address: '10.88.13.2', scope: 'machine' }, 'far'),
    instance('node3:out', { ready: false }, 'out'),
    // What the store says of this machine is old news.
    instance('node1:gone', { address: '10.77.0.99' }),
  ])
  const ask = (name: string, type: string): ServiceAnswer =>
    answerQuestion({ name, type } as Question, directory, () => 0.999)
  return { directory, ask }
}

const data = (answers: Answer[]): unknown[] => answers.map((each) => ('data' in each ? each.data : undefined))

test('a service has the addresses of its ready instances, each once', () => {
  const { ask } = setUp()
  const { code, answers } = ask('web.svc.kiln', 'A')
  expect(code).toBe('NOERROR')
  expect(data(answers)).toEqual(['10.77.0.11', '10.77.0.12'])
  expect(answers[0]).toMatchObject({ name: 'web.svc.kiln', type: 'A', ttl: 1 })
  expect(data(ask('web.svc.kiln', 'AAAA').answers)).toEqual(['fd00::12'])
  expect(data(ask('WEB.Svc.Kiln', 'ANY').answers)).toContain('fd00::12')
})

test('SRV names each port and instance, with addresses beside', () => {
  const { ask } = setUp()
  const { answers, additionals } = ask('web.svc.kiln', 'SRV')
  expect(data(answers)).toEqual([
    { priority: 0, weight: 1, port: 8000, target: 'a.node1.web.svc.kiln' },
    { priority: 0, weight: 1, port: 8000, target: 'b.node2.web.svc.kiln' },
    { priority: 0, weight: 1, port: 53, target: 'c.node2.web.svc.kiln' },
  ])
  expect(additionals).toContainEqual({ name: 'b.node2.web.svc.kiln', type: 'AAAA', ttl: 1, data: 'fd00::12' })
  const named = ask('_http._tcp.web.svc.kiln', 'SRV')
  expect(data(named.answers)).toHaveLength(2)
  expect(named.answers[0]?.name).toBe('_http._tcp.web.svc.kiln')
  expect(named.additionals.map(({ name }) => name)).not.toContain('c.node2.web.svc.kiln')
  expect(data(ask('_http._tcp.node2.web.svc.kiln', 'SRV').answers)).toHaveLength(1)
  expect(data(ask('b.node2.web.svc.kiln', 'A').answers)).toEqual(['10.77.0.12'])
})

test('what exists without an answer is no error, what does not is none', () => {
  const { ask } = setUp()
  for (const [name, type] of [
    ['out.svc.kiln', 'A'],
    ['d.node3.web.svc.kiln', 'A'],
    ['web.svc.kiln', 'TXT'],
    ['_tcp.web.svc.kiln', 'SRV'],
    ['_http._tcp.web.svc.kiln', 'A'],
    ['far.svc.kiln', 'A'],
    ['svc.kiln', 'A'],
  ] as const) {
    const { code, answers, authorities } = ask(name, type)
    expect([name, code, answers, authorities[0]?.type]).toEqual([name, 'NOERROR', [], 'SOA'])
  }
  for (const name of [
    'none.svc.kiln',
    'b.node1.web.svc.kiln',
    '_ftp._tcp.web.svc.kiln',
    '_http._udp.web.svc.kiln',
    '_http._icmp.web.svc.kiln',
    '_a._http._tcp.web.svc.kiln',
    'x.b.node2.web.svc.kiln',
  ]) {
    const { code, authorities } = ask(name, 'SRV')
    expect([name, code, authorities[0]?.type]).toEqual([name, 'NXDOMAIN', 'SOA'])
  }
  expect(data(ask('local.svc.kiln', 'A').answers)).toEqual(['10.88.11.9'])
  expect(ask('svc.kiln', 'SOA').answers).toHaveLength(1)
})

test('names of others, classes and transfers are refused', () => {
  const { directory, ask } = setUp()
  for (const name of ['example.com', 'kiln', '.', 'xsvc.kiln', 'svc.kiln.example'])
    expect(ask(name, 'A').code).toBe('REFUSED')
  expect(ask('svc.kiln', 'AXFR').code).toBe('REFUSED')
  const chaos = { name: 'web.svc.kiln', type: 'A', class: 'CH' } as const
  expect(answerQuestion(chaos, directory, () => 0).code).toBe('REFUSED')
})

test('answers follow the directory: a failed probe, a machine that is gone, a pod of this machine', () => {
  const { directory, ask } = setUp()
  directory.put(instance('node2:b', { address: '10.77.0.12', ready: false }))
  directory.delete({ service: 'web', machine: 'node2', pod: 'c' })
  directory.delete({ service: 'none', machine: 'node2', pod: 'c' })
  expect(data(ask('web.svc.kiln', 'A').answers)).toEqual(['10.77.0.11'])
  directory.setOwn([])
  expect(ask('web.svc.kiln', 'A')).toMatchObject({ code: 'NOERROR', answers: [] })
  directory.replace([])
  expect(ask('web.svc.kiln', 'A').code).toBe('NXDOMAIN')
})

test('a large service is answered in part, and not always the same', () => {
  const directory = new ServiceDirectory('node1')
  const address = (index: number): string => `10.1.${index >> 8}.${index & 255}`
  directory.replace(
    Array.from({ length: 600 }, (_, index) => instance(`n${index}:p`, { address: address(index) })),
  )
  const ask = (random: () => number): unknown[] =>
    data(answerQuestion({ name: 'web.svc.kiln', type: 'A' }, directory, random).answers)
  expect(ask(() => 0)).toHaveLength(instancesMax)
  expect(ask(() => 0)).not.toEqual(ask(() => 0.7))
})
