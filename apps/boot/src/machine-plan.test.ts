import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { MachinePlan } from '@kiln/schemas'
import { afterEach, expect, test } from 'vitest'
import {
  fileOf,
  json,
  macOf,
  type Place,
  place,
  report,
  start,
  stopAll,
  text,
  tls,
} from './server-fixture.ts'

afterEach(stopAll)

const planOf = (server: Awaited<ReturnType<typeof start>>, at: Place, machine: string) =>
  tls(server, at, { method: 'GET', path: `/v1/machines/${machine}/plan`, cert: 'admin' })

/** Everything that a request could have changed: names and contents below the data directory. */
const stateOf = (at: Place): string[] =>
  readdirSync(at.data, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.endsWith('pki'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
    .map((path) => `${path}: ${readFileSync(path, 'utf8')}`)

test('a plan has what an install would be served, and making it changes nothing', async () => {
  const at = place(1)
  const server = await start(at)
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  const before = stateOf(at)
  const { status, body } = await planOf(server, at, 'node1')
  expect(status).toBe(200)
  expect(stateOf(at)).toEqual(before)
  const plan = MachinePlan.parse(body)
  expect(plan.next).toEqual({ kind: 'install', reinstall: false })
  expect(plan.kernelArguments).toContain('kiln.machine=node1')
  expect(plan.kernelArguments).not.toContain('kiln.reinstall=1')
  const served = await json(`${server.url}/ignition?mac=${macOf(1)}`)
  const paths = (config: typeof served): string[] =>
    config.storage.files
      .map(({ path }: { path: string }) => path)
      .filter((path: string) => !/enrol/.test(path))
  expect(paths(plan.config)).toEqual(paths(served))
  expect(fileOf(plan.config, '/etc/kiln/enrol.json')).toBeUndefined()
  const member = (config: typeof served): string =>
    (fileOf(config, '/etc/kiln/kv.env') ?? '').replace(/TOKEN=.*/, 'TOKEN=')
  expect(member(plan.config)).toBe(member(served))
  expect(member(served)).toContain('ETCD_INITIAL_CLUSTER_STATE=new')
})

test('an installed machine is shown as if it were reinstalled: the only member of a store begins another one', async () => {
  const at = place(1)
  const server = await start(at)
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  await json(`${server.url}/ignition?mac=${macOf(1)}`)
  await report(server, 'node1', { stage: 'files', status: 'done' })
  const plan = MachinePlan.parse((await planOf(server, at, 'node1')).body)
  expect(plan.next).toEqual({ kind: 'disk' })
  expect(plan.kernelArguments).toContain('kiln.reinstall=1')
  expect(fileOf(plan.config, '/etc/kiln/kv.env')).toContain('ETCD_INITIAL_CLUSTER_STATE=new')
  expect(await json(`${server.url}/v1/machines/node1`)).toMatchObject({ state: 'installed', installs: 1 })
})

test('nobody but an operator sees a plan; one that is not there yet says why', async () => {
  const at = place(2)
  const server = await start(at)
  await text(`${server.url}/ipxe?mac=${macOf(1)}`)
  await text(`${server.url}/ipxe?mac=${macOf(7)}`)
  expect((await fetch(`${server.url}/v1/machines/node1/plan`)).status).toBe(403)
  const codes = await Promise.all(
    ['node1', macOf(7), 'node9'].map(async (name) => (await planOf(server, at, name)).body.error.code),
  )
  expect(codes).toEqual(['CLUSTER_WAITING', 'MACHINE_NOT_ASSIGNED', 'MACHINE_UNKNOWN'])
})
