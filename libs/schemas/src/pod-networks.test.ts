import { expect, test } from 'vitest'
import { parsePod } from './pod.ts'
import { networksAnnotation, readPodNetworks } from './pod-networks.ts'

const read = (text: string) => readPodNetworks({ [networksAnnotation]: text })

test('a pod that says nothing has the default network, and one that says none has no network', () => {
  expect(readPodNetworks({})).toEqual({ networks: [{ name: 'default', interface: 'eth0' }] })
  expect(read('none')).toEqual({ networks: [] })
})

test('networks are a list with interfaces by their place, or by name', () => {
  expect(read('default, storage@data0,third')).toEqual({
    networks: [
      { name: 'default', interface: 'eth0' },
      { name: 'storage', interface: 'data0' },
      { name: 'third', interface: 'eth2' },
    ],
  })
})

test('networks as JSON may ask for addresses', () => {
  const entry = { name: 'lan', interface: 'eth1', ips: ['10.1.2.3/24', 'fd00::3'], mac: '02-00-00-00-00-01' }
  expect(read(JSON.stringify([entry]))).toEqual({ networks: [{ ...entry, mac: '02:00:00:00:00:01' }] })
})

test.each([
  ['', 'entry 1.name: is no name of a network'],
  ['a,,b', 'entry 2.name: is no name of a network'],
  ['../etc', 'entry 1.name'],
  ['a@lo', 'entry 1.interface: is the loopback'],
  ['a@b@c', 'entry 1.interface'],
  ['a@averylonginterface', 'entry 1.interface'],
  ['a,a@eth5', 'name a is there twice'],
  ['a@eth1,b', 'interface eth1 is there twice'],
  ['none,a', 'none stands alone'],
  ['a,b,c,d,e,f,g,h,i', 'Too big'],
  ['[', 'Invalid input'],
  ['[{"name":"a","ips":["x"]}]', 'entry 1.ips.0: is no address'],
  ['[{"name":"a","more":1}]', 'more'],
])('networks %s are refused', (text, problem) => {
  expect(read(text).problem).toContain(problem)
})

test('a pod says which annotation is wrong, and has networks of its own or those of the machine', () => {
  const pod = (text: string, hostNetwork: boolean) =>
    parsePod({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'a', annotations: { [networksAnnotation]: text } },
      spec: { hostNetwork, containers: [{ name: 'a', image: 'oci:/a' }] },
    }).problems
  expect(pod('default,storage', false)).toEqual([])
  expect(pod('a/b', false)[0]?.path).toBe('metadata.annotations.kiln.dev/networks')
  expect(pod('bridge', true)[0]?.message).toContain('hostNetwork')
})
