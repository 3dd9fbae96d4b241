import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import {
  addNetwork,
  addressesOf,
  type ChainState,
  checkNetwork,
  deleteNetwork,
  pluginRequest,
} from './chain.ts'
import { masqueradeChain } from './leftovers.ts'
import type { NetworkList } from './network-list.ts'
import type { PluginCall, PluginRunner } from './plugin.ts'

const network: NetworkList = {
  cniVersion: '1.0.0',
  name: 'net',
  plugins: [
    { type: 'one', mode: 'x', capabilities: { mac: true, ips: false } },
    { type: 'two', capabilities: { portMappings: true } },
    { type: 'three' },
  ],
}
const state: ChainState = {
  network,
  containerId: 'c1',
  interfaceName: 'eth0',
  netns: '/proc/1/ns/net',
  args: 'IgnoreUnknown=1',
  capabilityArgs: {
    mac: '02:00:00:00:00:01',
    portMappings: [{ hostPort: 1, containerPort: 2, protocol: 'tcp' }],
  },
  begun: 0,
}

/** Plug-ins that answer with their name, and fail where they are told to. */
function fakes(options: { fails?: string[]; speaks?: string[] } = {}) {
  const calls: { type: string; call: PluginCall; config: Record<string, unknown> }[] = []
  const plugins: PluginRunner = {
    run: async (type, call, config) => {
      if (call.command === 'VERSION') return { supportedVersions: options.speaks ?? ['0.4.0', '1.0.0'] }
      calls.push({ type, call, config: { ...config } })
      if (options.fails?.includes(type)) throw new Fault('CNI_PLUGIN_FAILED', type)
      return { cniVersion: '1.0.0', of: type }
    },
  }
  return { plugins, calls }
}

test('plug-ins are run in order, each with what the one before it answered and what it announces', async () => {
  const { plugins, calls } = fakes()
  const begun: number[] = []
  const done = await addNetwork(state, plugins, async (now) => {
    // Recorded before the plug-in runs.
    expect(calls.length).toBe(now.begun - 1)
    begun.push(now.begun)
  })
  expect(begun).toEqual([1, 2, 3])
  expect(done.result).toMatchObject({ of: 'three' })
  expect(calls.map(({ config }) => config)).toEqual([
    { type: 'one', mode: 'x', cniVersion: '1.0.0', name: 'net', runtimeConfig: { mac: '02:00:00:00:00:01' } },
    {
      type: 'two',
      cniVersion: '1.0.0',
      name: 'net',
      runtimeConfig: { portMappings: state.capabilityArgs.portMappings },
      prevResult: { cniVersion: '1.0.0', of: 'one' },
    },
    { type: 'three', cniVersion: '1.0.0', name: 'net', prevResult: { cniVersion: '1.0.0', of: 'two' } },
  ])
  expect(calls[0]?.call).toMatchObject({ command: 'ADD', containerId: 'c1', interfaceName: 'eth0' })
})

test('only what was begun is undone, the last first, and a failure keeps nobody from their part', async () => {
  const { plugins, calls } = fakes({ fails: ['two'] })
  const result = { cniVersion: '1.0.0' }
  await expect(deleteNetwork({ ...state, begun: 2, result }, plugins)).rejects.toThrow('two')
  expect(calls.map(({ type }) => type)).toEqual(['two', 'one'])
  expect(calls[1]?.config['prevResult']).toEqual(result)
})

test('networks before 0.4.0 are undone without a result and not checked', async () => {
  const { plugins, calls } = fakes()
  const old = {
    ...state,
    network: { ...network, cniVersion: '0.3.1' as const },
    begun: 1,
    result: { cniVersion: '0.3.1' },
  }
  await deleteNetwork(old, plugins)
  expect(calls[0]?.config).not.toHaveProperty('prevResult')
  await checkNetwork(old, plugins)
  await checkNetwork({ ...state, network: { ...network, disableCheck: true } }, plugins)
  expect(calls.length).toBe(1)
  await checkNetwork(state, plugins)
  expect(calls.slice(1).map(({ type, call }) => `${type} ${call.command}`)).toEqual([
    'one CHECK',
    'two CHECK',
    'three CHECK',
  ])
})

test('nothing is begun when a plug-in does not speak the version', async () => {
  const { plugins, calls } = fakes({ speaks: ['0.4.0'] })
  await expect(addNetwork(state, plugins, async () => undefined)).rejects.toMatchObject({
    code: 'CNI_VERSION_UNSUPPORTED',
    message: 'network net is of CNI 1.0.0, and plug-in one speaks 0.4.0',
  })
  expect(calls).toEqual([])
})

test('a capability that is announced as false is not told', () => {
  const plugin = network.plugins[0]!
  expect(pluginRequest(network, plugin, { ips: ['10.0.0.1'] }, undefined)).not.toHaveProperty('runtimeConfig')
})

test('addresses are those of the container', () => {
  const interfaces = [{ name: 'br0' }, { name: 'eth0', sandbox: '/proc/1/ns/net' }]
  const ips = [
    { address: '10.0.0.1/24', interface: 0 },
    { address: '10.0.0.2/24', interface: 1 },
    { address: 'fd00::2/64' },
  ]
  expect(addressesOf({ cniVersion: '1.0.0', interfaces, ips })).toEqual(['10.0.0.2', 'fd00::2'])
  expect(addressesOf(undefined)).toEqual([])
})

test('the chain of a container is named as the plug-ins name it', () => {
  // Of network n and container abc, as bridge 1.1.1 made it.
  expect(masqueradeChain('n', 'abc')).toBe('CNI-5a1527d2fe74c1a342e29c75')
})
