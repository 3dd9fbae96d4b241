import { execFile } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { EtcdClient } from '@kiln/etcd-api'
import { afterEach, expect, test } from 'vitest'
import { startEtcd } from '../testing/etcd-process.ts'
import { fetchEtcd, fetchEtcdctl } from '../testing/etcdctl.ts'
import { freePorts, type MemberProcess, memberProcess, startMembers } from '../testing/member-process.ts'

const run = promisify(execFile)
const repository = resolve(import.meta.dirname, '../../../..')
const guide = await readFile(join(repository, 'docs/guides/store-backup.md'), 'utf8')
const etcdctl = await Promise.all([fetchEtcdctl(), fetchEtcd()]).then(
  ([path]) => path,
  () => undefined,
)
/** The guide uses etcdctl and an etcd: where apt can fetch them. */
const real = test.skipIf(etcdctl === undefined)
const closers: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

/** The lines of a section that are typed into a shell. */
function commandsOf(title: string): string[] {
  const section = guide.split(/^## /m).find((each) => each.startsWith(`${title}\n`))
  if (section === undefined) throw new Error(`the guide has no section ${title}`)
  return [...section.matchAll(/^```sh\n(.*?)^```/gms)].flatMap((match) => match[1]!.trim().split('\n'))
}

type Shell = (line: string) => Promise<string>

/** A shell that has the guide's programs and variables; `systemctl` is the test's own. */
async function openShell(
  variables: Record<string, string>,
  systemctl: Record<string, () => Promise<unknown>> = {},
): Promise<Shell> {
  const programs = await mkdtemp(join(tmpdir(), 'kiln-guide-'))
  closers.push(() => rm(programs, { recursive: true, force: true }))
  const main = join(repository, 'apps/cli/src/main.ts')
  await writeFile(join(programs, 'kiln'), `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
  await chmod(join(programs, 'kiln'), 0o755)
  const path = [programs, dirname(etcdctl!), process.env['PATH']].join(':')
  return async (line) => {
    const verb = /^systemctl (\w+) kiln-kv$/.exec(line)?.[1]
    if (verb !== undefined) {
      await systemctl[verb]!()
      return ''
    }
    const options = { env: { ...process.env, ...variables, PATH: path } }
    return (await run('bash', ['-euc', line], options)).stdout
  }
}

async function runSection(title: string, shell: Shell): Promise<string> {
  const commands = commandsOf(title)
  expect(commands.length).toBeGreaterThan(0)
  let output = ''
  for (const command of commands) output += await shell(command)
  return output
}

const clientOf = (endpoint: string): EtcdClient => {
  const client = new EtcdClient({ endpoints: [endpoint], timeoutMs: 20_000 })
  closers.push(async () => client.close())
  return client
}

real(
  'a store is saved, drilled, saved on a schedule and restored by the guide',
  { timeout: 240_000 },
  async () => {
    const cluster = await startMembers({ count: 1 })
    closers.push(cluster.stop)
    const endpoint = cluster.endpoints[0]!
    const BACKUPS = join(cluster.folder, 'backups')
    const DATA = join(cluster.folder, 'restored')
    const [client, peer] = await freePorts(2)
    const PEER = `http://127.0.0.1:${peer}`
    const served = `http://127.0.0.1:${client}`
    const variables = { ENDPOINTS: endpoint, BACKUPS, DATA, NAME: 'n1', PEER, CLUSTER: `n1=${PEER}` }
    let member: MemberProcess | undefined
    const shell = await openShell(variables, {
      stop: async () => member?.stop(),
      start: async () => {
        member = memberProcess('n1', served, PEER, DATA, [`--initial-cluster=n1=${PEER}`])
        closers.push(() => member!.stop())
        await member.start()
      },
    })
    const before = clientOf(endpoint)
    await before.put('kept', 'by the snapshot')
    const { revision } = await before.getPrefix('')
    expect(await runSection('Take a snapshot and prove it', shell)).toContain(
      `can be restored: revision ${revision}`,
    )
    await before.put('lost', 'with the machines')
    await runSection('Snapshots on a schedule', shell)
    expect(await readdir(BACKUPS)).toHaveLength(2)

    await shell('mkdir -p "$DATA/log"')
    variables.ENDPOINTS = served
    await runSection('Restore a cluster', shell)
    const after = clientOf(served)
    const found = await after.getPrefix('')
    expect(found.entries.map(({ key }) => key)).toEqual(['kept'])
    expect(found.revision).toBe(revision + 1_000_000_000n)
  },
)

real('a dead member is replaced by the guide', { timeout: 240_000 }, async () => {
  const cluster = await startMembers({ count: 3 })
  closers.push(cluster.stop)
  const [first, second, dead] = cluster.members as [MemberProcess, MemberProcess, MemberProcess]
  const client = clientOf(first.endpoint)
  await client.put('kept', 'x')
  const members = await client.memberList()
  const lost = members.find(({ name }) => name === dead.name)!
  await dead.kill()
  const [clientPort, peerPort] = await freePorts(2)
  const PEER = `http://127.0.0.1:${peerPort}`
  const endpoint = `http://127.0.0.1:${clientPort}`
  const others = members
    .filter(({ name }) => name !== dead.name)
    .map(({ name, peerUrls }) => `${name}=${peerUrls}`)
  const DATA = join(cluster.folder, 'replacement')
  const replacement = memberProcess('n4', endpoint, PEER, DATA, [
    `--initial-cluster=${[...others, `n4=${PEER}`].join(',')}`,
    '--initial-cluster-state=existing',
  ])
  closers.push(() => replacement.stop())
  const shell = await openShell(
    { ENDPOINTS: `${first.endpoint},${second.endpoint}`, DEAD: lost.id.toString(16), NAME: 'n4', PEER, DATA },
    { start: () => replacement.start() },
  )
  await runSection('Replace a dead member', shell)
  expect((await client.memberList()).map(({ name }) => name).sort()).toEqual(['m1', 'm2', 'n4'])
  const joined = clientOf(endpoint)
  expect(await joined.get('kept')).toMatchObject({ text: 'x' })
  const [here, there] = [await joined.hashKv(), await client.hashKv()]
  expect(here).toEqual(there)
})

real('an etcd is moved to kiln-kv by the guide', { timeout: 240_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-move-'))
  closers.push(() => rm(folder, { recursive: true, force: true }))
  const etcd = await startEtcd(join(folder, 'etcd'))
  closers.push(etcd.stop)
  await etcd.client.put('moved', 'x')
  const { revision } = await etcd.client.put('moved', 'y')
  const [client, peer] = await freePorts(2)
  const PEER = `http://127.0.0.1:${peer}`
  const served = `http://127.0.0.1:${client}`
  const DATA = join(folder, 'moved')
  const member = memberProcess('n1', served, PEER, DATA, [`--initial-cluster=n1=${PEER}`])
  closers.push(() => member.stop())
  const shell = await openShell(
    { ENDPOINTS: etcd.endpoint, DATA, NAME: 'n1', PEER },
    { start: () => member.start() },
  )
  expect(await runSection('Move from etcd to kiln-kv', shell)).toContain(`imported revision ${revision}`)
  expect(await clientOf(served).get('moved')).toMatchObject({ text: 'y', version: 2n, modRevision: revision })
})
