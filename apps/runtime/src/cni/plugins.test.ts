import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { afterAll, afterEach, expect, test } from 'vitest'
import {
  type Namespace,
  networksOf,
  openNamespace,
  pluginFolder,
  tracesOn,
  whyNoPlugins,
} from '../testing/cni-machine.ts'
import type { CniNetworks, PodToConnect } from './pod-networks.ts'

// Debian's own plug-ins, in namespaces that stand for the machine, its pods and the world.
const missing = whyNoPlugins()
if (missing) console.log(`skipped: CNI plug-ins on this host: ${missing}`)
const onHost = test.skipIf(missing !== undefined)

const opened: Namespace[] = []
afterEach(async () => {
  for (const namespace of opened.splice(0)) await namespace.close()
})
const namespace = async (): Promise<Namespace> => {
  const made = await openNamespace()
  opened.push(made)
  return made
}

const podOf = ({ sandbox }: Namespace, name: string, more: Partial<PodToConnect> = {}): PodToConnect => ({
  uid: `uid of ${name}`,
  name,
  namespace: 'default',
  generation: 1,
  sandbox,
  networks: [{ name: 'bridge', interface: 'eth0' }],
  ports: [],
  ...more,
})

/** A machine that has had a pod already: chains that all pods share are there. */
async function setUp(options: Partial<Parameters<typeof networksOf>[0]> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-cni-'))
  const machine = await namespace()
  const at = { folder, machine: machine.path }
  const networks = networksOf({ ...at, ...options })
  const first = podOf(await namespace(), 'first', { ports })
  await networks.connect(first)
  await networks.disconnect(first.uid)
  return { folder, machine, at, networks, before: await tracesOn(machine, folder) }
}

const ports: PodToConnect['ports'] = [{ port: 80, hostPort: 8080, protocol: 'TCP' }]

/** Says who asks. */
const answer = (inside: Namespace, port: number): Promise<void> =>
  new Promise((resolve) => {
    const script = `require('net').createServer((s)=>s.end(s.remoteAddress)).listen(${port},'::',()=>console.log('up'))`
    inside.spawn(process.execPath, '-e', script).stdout?.once('data', () => resolve())
  })
const ask = (inside: Namespace, host: string, port: number): Promise<string> =>
  inside.run(
    process.execPath,
    '-e',
    `require('net').connect({host:'${host}',port:${port},timeout:5000}).on('timeout',()=>process.exit(2)).pipe(process.stdout)`,
  )

onHost(
  'pods reach each other and the world by both families, the world reaches a port, and nothing is left',
  async () => {
    const { folder, machine, networks, before } = await setUp()
    const [one, two, world] = [await namespace(), await namespace(), await namespace()]
    await machine.run(
      'ip',
      'link',
      'add',
      'uplink',
      'type',
      'veth',
      'peer',
      'name',
      'outer',
      'netns',
      String(world.sandbox.pid),
    )
    await machine.run('ip', 'addr', 'add', '192.0.2.2/24', 'dev', 'uplink')
    await machine.run('ip', 'link', 'set', 'uplink', 'up')
    await world.run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'outer')
    await world.run('ip', 'link', 'set', 'outer', 'up')

    const first = await networks.connect(podOf(one, 'one', { ports }))
    const second = await networks.connect(podOf(two, 'two'))
    expect(first.addresses[0]).toMatch(/^10\.89\.11\.\d+$/)
    expect(first.addresses[1]).toMatch(/^fd6b:696c:6e00:b::\w+$/)
    expect(first.gateways).toEqual(['10.89.11.1', 'fd6b:696c:6e00:b::1'])
    expect(new Set([...first.addresses, ...second.addresses]).size).toBe(4)

    await answer(one, 80)
    await answer(world, 90)
    expect(await ask(two, first.addresses[0]!, 80)).toContain(second.addresses[0])
    expect(await ask(two, first.addresses[1]!, 80)).toBe(second.addresses[1])
    // Hidden behind the machine on the way out, and found behind its port on the way in.
    expect(await ask(two, '192.0.2.1', 90)).toContain('192.0.2.2')
    expect(await ask(world, '192.0.2.2', 8080)).toContain('192.0.2.1')
    expect(await ask(machine, '192.0.2.2', 8080)).not.toBe('')
    expect(await ask(machine, 'fd6b:696c:6e00:b::1', 8080)).not.toBe('')
    const during = await tracesOn(machine, folder)
    for (const rules of [during['rules'], during['rules6']])
      expect(rules?.filter((rule) => rule.endsWith('-j MASQUERADE') && rule.includes('id:')).length).toBe(2)
    expect(during['leases']?.length).toBe(1 + 4)

    await networks.disconnect('uid of one')
    await networks.disconnect('uid of two')
    await machine.run('ip', 'link', 'delete', 'uplink')
    expect(await tracesOn(machine, folder)).toEqual(before)
  },
  60_000,
)

onHost(
  'a pod has several networks, of files too, and addresses and a MAC of its choice',
  async () => {
    const { folder, machine, networks, before } = await setUp()
    mkdirSync(join(folder, 'net.d'))
    const ipam = {
      type: 'host-local',
      dataDir: join(folder, 'leases'),
      ranges: [[{ subnet: '10.99.0.0/24' }]],
    }
    const storage = {
      cniVersion: '0.4.0',
      name: 'storage',
      type: 'bridge',
      bridge: 'kiln-test1',
      ipam,
      capabilities: { ips: true, mac: true },
    }
    writeFileSync(join(folder, 'net.d/10-storage.conf'), JSON.stringify(storage))
    const pod = await namespace()
    const wish = { name: 'storage', interface: 'data0', ips: ['10.99.0.77/24'], mac: '02:00:00:00:00:77' }
    const { addresses } = await networks.connect(
      podOf(pod, 'one', { networks: [{ name: 'bridge', interface: 'eth0' }, wish] }),
    )
    expect(addresses.length).toBe(3)
    expect(addresses[2]).toBe('10.99.0.77')
    const link = await pod.run('ip', 'addr', 'show', 'data0')
    expect(link).toContain('inet 10.99.0.77/24')
    expect(link).toContain('02:00:00:00:00:77')
    await networks.disconnect('uid of one')
    const after = await tracesOn(machine, folder)
    expect(after['links']?.filter((name) => name !== 'kiln-test1')).toEqual(before['links'])
    expect(after['leases']?.filter((name) => name !== 'storage')).toEqual(before['leases'])
    expect(after['rules']).toEqual(before['rules'])
  },
  60_000,
)

onHost(
  'a network that cannot be made leaves nothing of those before it, and says why',
  async () => {
    const { folder, machine, networks, before } = await setUp()
    const connect = async (network: object, more: Partial<PodToConnect> = {}): Promise<void> => {
      mkdirSync(join(folder, 'net.d'), { recursive: true })
      writeFileSync(
        join(folder, 'net.d/x.conflist'),
        JSON.stringify({ cniVersion: '1.0.0', name: 'x', ...network }),
      )
      const both = [
        { name: 'bridge', interface: 'eth0' },
        { name: 'x', interface: 'eth1' },
      ]
      await networks.connect(podOf(await namespace(), 'one', { networks: both, ports, ...more }))
    }
    await expect(connect({ plugins: [{ type: 'nonesuch' }] })).rejects.toMatchObject({
      code: 'CNI_PLUGIN_MISSING',
    })
    await expect(
      connect({ plugins: [{ type: 'bridge', bridge: 'a-name-that-is-too-long' }] }),
    ).rejects.toMatchObject({
      code: 'CNI_PLUGIN_FAILED',
      message: expect.stringContaining('plug-in bridge, ADD'),
    })
    await expect(connect({ cniVersion: '9.0.0', plugins: [{ type: 'bridge' }] })).rejects.toMatchObject({
      code: 'CNI_NETWORK_UNKNOWN',
      message: expect.stringContaining('x.conflist cniVersion'),
    })
    const lan = [{ name: 'x', interface: 'eth0', ips: ['10.0.0.1'] }]
    await expect(connect({ plugins: [{ type: 'bridge' }] }, { networks: lan })).rejects.toMatchObject({
      code: 'POD_NETWORK_FAILED',
    })
    expect(await tracesOn(machine, folder)).toEqual(before)
  },
  60_000,
)

onHost(
  'a network that somebody took apart is told',
  async () => {
    const told: unknown[] = []
    const log = Object.assign(Object.create(createLog('test', 'silent')), {
      warn: (fields: unknown) => told.push(fields),
    })
    const { networks } = await setUp({ log })
    const pod = await namespace()
    await networks.connect(podOf(pod, 'one', { ports }))
    await networks.check()
    expect(told).toEqual([])
    await pod.run('ip', 'addr', 'flush', 'dev', 'eth0')
    await networks.check()
    expect(told).toMatchObject([{ pod: 'one', network: 'bridge' }])
  },
  60_000,
)

/** One machine for all crashes: after each it is as it was before. */
let crashed: ReturnType<typeof setUp> | undefined
afterAll(async () => {
  await (await crashed)?.machine.close()
})
async function machineForCrashes(): ReturnType<typeof setUp> {
  crashed ??= setUp()
  const { machine } = await crashed
  const place = opened.indexOf(machine)
  if (place >= 0) opened.splice(place, 1)
  return crashed
}

/** Plug-ins of which one ends the daemon, and then goes on or has just been through. */
function deadlyPlugins(folder: string, type: string, command: string, moment: string): string {
  const path = mkdtempSync(join(folder, 'plugins-'))
  for (const name of readdirSync(pluginFolder)) {
    if (name !== type) symlinkSync(join(pluginFolder, name), join(path, name))
  }
  // host-local is run by another plug-in, so the daemon says who it is.
  const kill = `kill -9 $(cat "${path}/daemon")`
  const real = `"${join(pluginFolder, type)}"`
  const script =
    moment === 'before' ? `${kill}; exec ${real}` : `${real} >"${path}/out"; ${kill}; cat "${path}/out"`
  writeFileSync(
    join(path, type),
    `#!/bin/sh\nif [ "$CNI_COMMAND" != ${command} ]; then exec ${real}; fi\n${script}\n`,
  )
  chmodSync(join(path, type), 0o755)
  return path
}

/** Runs a daemon to its end; the signal that ended it. */
const runDaemon = (work: object): Promise<string | null> =>
  new Promise((resolve) => {
    const script = join(import.meta.dirname, '../testing/connect-pod.ts')
    spawn(process.execPath, [script, JSON.stringify(work)], { stdio: 'inherit' }).on('exit', (_, signal) =>
      resolve(signal),
    )
  })

const types = ['bridge', 'host-local', 'portmap', 'firewall']
const moments = types.flatMap((type) => ['before', 'after'].map((moment) => [type, moment] as const))

/** Kills a daemon at its work and has another one clean up, with or without the pod's sandbox. */
async function crash(
  command: 'ADD' | 'DEL',
  [type, moment]: readonly [string, string],
  recover: (networks: CniNetworks, pod: Namespace, uid: string) => Promise<void>,
) {
  const { folder, machine, at, networks, before } = await machineForCrashes()
  const path = deadlyPlugins(folder, type, command, moment)
  const inside = await namespace()
  const pod = podOf(inside, 'one', { ports })
  if (command === 'DEL') await networks.connect(pod)
  const work = command === 'ADD' ? { connect: pod } : { disconnect: pod.uid }
  expect(await runDaemon({ at: { ...at, path }, ...work })).toBe('SIGKILL')
  // Nothing was removed by the daemon that died: what it recorded is there.
  expect((await tracesOn(machine, folder))['attachments']).toHaveLength(2)
  await recover(networksOf(at), inside, pod.uid)
  expect(await tracesOn(machine, folder)).toEqual(before)
}

onHost.each(moments)(
  'after a daemon was killed %s %s added, the pod that is gone leaves nothing',
  async (...at) => {
    await crash('ADD', at, async (networks, pod) => {
      await pod.close()
      await networks.collect(new Set())
    })
  },
  60_000,
)

onHost.each([
  ['bridge', 'before'],
  ['portmap', 'after'],
] as const)(
  'after a daemon was killed %s %s deleted, nothing is left',
  async (...at) => {
    await crash('DEL', at, async (networks, pod) => {
      await pod.close()
      await networks.collect(new Set())
    })
  },
  60_000,
)

onHost(
  'a sandbox that a crash left half connected keeps what it has until its pod closes it, and can be connected',
  async () => {
    await crash('ADD', ['portmap', 'after'], async (networks, pod, uid) => {
      await networks.collect(new Set([uid]))
      await networks.collect(new Set())
      const { addresses } = await networks.connect(podOf(pod, 'one', { ports, generation: 2 }))
      expect(addresses.length).toBe(2)
      await networks.disconnect(uid)
    })
  },
  60_000,
)

onHost('what a pod had is undone in the next boot, even if its process seems to be there', async () => {
  const { folder, machine, at, networks, before } = await machineForCrashes()
  const pod = podOf(await namespace(), 'one')
  await networks.connect(pod)
  await networks.collect(new Set())
  expect((await tracesOn(machine, folder))['attachments']).toHaveLength(2)
  await networksOf({ ...at, bootId: 'boot2' }).collect(new Set())
  const { leases, attachments, rules } = await tracesOn(machine, folder)
  expect({ leases, attachments, rules }).toEqual({
    leases: before['leases'],
    attachments: [],
    rules: before['rules'],
  })
})
