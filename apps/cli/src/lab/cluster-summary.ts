import type { EtcdClient } from '@kiln/etcd-api'
import { PodStatus, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { labStatus } from '@kiln/vm'
import type { StepReport } from '../progress/steps.ts'
import { table } from '../progress/table.ts'
import { BootClient } from './boot-client.ts'
import {
  adminIdentity,
  listJson,
  machineStatuses,
  openStore,
  storeEndpoints,
  storeMembers,
  withStore,
} from './cluster-store.ts'
import type { LabRecord, StateFolder } from './state-folder.ts'

export type MachineSummary = {
  name: string
  address: string
  power: 'on' | 'off'
  state: string
  version: string
  slot: string
  store: 'leader' | 'member' | 'unreachable'
  cpuSeconds?: number
  rssMiB?: number
}

export type ClusterSummary = {
  kind: 'virtual' | 'embedded'
  state: string
  machines: MachineSummary[]
  leader?: string
  pods: { machine: string; pod: string; phase: string }[]
  console: string
  /** Socket of the process that owns the cluster (libs/vm, lab-control.ts). */
  control: string
  etcdctl: Record<string, string>
  /** How long it took to come up. */
  seconds?: number
}

const clusterTimeoutMs = 180_000
const lookIntervalMs = 1_000

/** What a cluster is now, as far as it answers; who asks again and again passes a store that stays open. */
export async function summarise(
  state: StateFolder,
  lab: LabRecord,
  open?: EtcdClient,
): Promise<ClusterSummary> {
  const identity = adminIdentity(state)
  const [status, records, store] = await Promise.all([
    labStatus(state.control).catch(() => undefined),
    new BootClient(state, lab).machines().catch(() => []),
    (open ? readStore(open, lab) : withStore(state, lab, (store) => readStore(store, lab))).catch(
      () => undefined,
    ),
  ])
  const machines = lab.machines.map((machine): MachineSummary => {
    const power = status?.machines.find(({ name }) => name === machine.name)
    const record = records.find(({ mac }) => mac === machine.bootMac)
    const kept = store?.machines.get(machine.name)
    const member = store?.members.find(({ name }) => name === machine.name)
    return {
      name: machine.name,
      address: machine.address,
      power: power?.power ?? 'off',
      state: kept?.state ?? record?.state ?? 'unknown',
      version: kept?.version ?? record?.version ?? '',
      slot: kept?.slot ?? record?.slot ?? '',
      store: member?.healthy ? (member.leader ? 'leader' : 'member') : 'unreachable',
      cpuSeconds: power?.cpuSeconds,
      rssMiB: power?.rssMiB,
    }
  })
  return {
    kind: lab.kind,
    state: state.root,
    machines,
    leader: machines.find((machine) => machine.store === 'leader')?.name,
    pods: store?.pods ?? [],
    console: `http://127.0.0.1:${lab.bootPort}/`,
    control: state.control,
    etcdctl: {
      ETCDCTL_API: '3',
      ETCDCTL_ENDPOINTS: storeEndpoints(lab).join(','),
      ETCDCTL_CACERT: identity.ca,
      ETCDCTL_CERT: identity.cert,
      ETCDCTL_KEY: identity.key,
    },
  }
}

async function readStore(store: EtcdClient, lab: LabRecord) {
  const [members, machines, pods] = await Promise.all([
    storeMembers(store, lab),
    machineStatuses(store).catch(() => new Map<string, never>()),
    listPods(store).catch(() => []),
  ])
  return { members, machines, pods }
}

type PodReader = Parameters<typeof listJson>[0]

export async function listPods(store: PodReader): Promise<ClusterSummary['pods']> {
  const found = await listJson(store, '/kiln/status/')
  return found.map(({ key, value }) => {
    const [machine = '', pod = ''] = key.slice('/kiln/status/'.length).split('/')
    const status = PodStatus.safeParse(value)
    return { machine, pod, phase: status.success ? status.data.phase : 'unknown' }
  })
}

/** Waits until the store has a leader, every machine is in it and every machine's pod runs. */
export async function waitForCluster(at: {
  state: StateFolder
  lab: LabRecord
  report: StepReport
  signal: AbortSignal
  /** What the pods should have come to. */
  podPhase?: 'Running' | 'Refused'
  /** Release every machine should run. */
  version?: string
  timeoutMs?: number
  /** Throws when it cannot come about any more. */
  check?: () => Promise<void>
}): Promise<ClusterSummary> {
  const started = performance.now()
  let said = ''
  // One connection to each member for all the looks: a handshake costs an emulated machine more than everything else it is asked.
  let store: EtcdClient | undefined
  try {
    for (;;) {
      if (at.signal.aborted) throw new Fault('CANCELLED', 'cancelled')
      store ??= await openStore(at.state, at.lab).catch(() => undefined)
      const summary = await summarise(at.state, at.lab, store)
      const missing = findMissing(summary, at)
      if (missing === undefined) return summary
      await at.check?.()
      if (performance.now() - started > (at.timeoutMs ?? clusterTimeoutMs))
        throw new Fault('CLUSTER_LATE', missing)
      if (missing !== said) at.report.note(`waiting: ${missing}`)
      said = missing
      await new Promise((resolve) => setTimeout(resolve, lookIntervalMs))
    }
  } finally {
    store?.close()
  }
}

/** What a cluster still lacks to be whole. */
export function findMissing(
  summary: ClusterSummary,
  wanted: { podPhase?: 'Running' | 'Refused'; version?: string } = {},
): string | undefined {
  const podPhase = wanted.podPhase ?? 'Running'
  if (!summary.leader) return 'the store has no leader'
  const unhealthy = summary.machines.filter(({ store }) => store === 'unreachable').map(({ name }) => name)
  if (unhealthy.length > 0) return `no store member answers on ${unhealthy.join(', ')}`
  const unready = summary.machines.filter(({ state }) => state !== 'ready').map(({ name }) => name)
  if (unready.length > 0) return `${unready.join(', ')} not ready in the store (${storeKeys.machines})`
  const podless = summary.machines.filter(
    ({ name }) => !summary.pods.some(({ machine, phase }) => machine === name && phase === podPhase),
  )
  if (podless.length > 0)
    return `no ${podPhase.toLowerCase()} pod on ${podless.map(({ name }) => name).join(', ')}`
  const old = summary.machines.filter(
    ({ version }) => wanted.version !== undefined && version !== wanted.version,
  )
  if (old.length > 0) {
    return `${old.map(({ name, version, state }) => `${name} ${version} ${state}`).join(', ')}; wanted ${wanted.version}`
  }
  return undefined
}

/** The table of machines, and what to try next. */
export function describeSummary(summary: ClusterSummary): string {
  const rows = summary.machines.map((machine) => [
    machine.name,
    machine.address,
    machine.power,
    machine.state,
    machine.version,
    machine.slot,
    machine.store,
    summary.pods
      .filter(({ machine: at }) => at === machine.name)
      .map(({ pod, phase }) => `${pod} ${phase}`)
      .join(', '),
  ])
  const first = summary.machines[0]?.name ?? 'node1'
  return [
    '',
    table([['MACHINE', 'ADDRESS', 'POWER', 'STATE', 'VERSION', 'SLOT', 'STORE', 'PODS'], ...rows]),
    '',
    `Store leader: ${summary.leader ?? 'none'}`,
    `Boot server:  ${summary.console}v1/machines`,
    ...(summary.seconds === undefined ? [] : [`Time:         ${summary.seconds} s`]),
    '',
    'For etcdctl:',
    ...Object.entries(summary.etcdctl).map(([name, value]) => `  export ${name}=${value}`),
    '',
    'Try next:',
    '  kiln machines                      what each machine does',
    `  kiln logs ${first}                    what it said from power-on to now`,
    ...(summary.kind === 'virtual'
      ? [
          `  kiln console ${first}                 its console (Ctrl-] leaves)`,
          `  kiln pods exec ${first}/hello id      a program in a pod; also: pods logs, events, stats`,
          '  kiln services                      where the pods are reached',
          '  kiln up --demo                     a second image, rolled over the machines under load',
        ]
      : []),
    '  kiln update status                 what should run, and what does',
    '  etcdctl get --prefix /kiln         all the cluster knows, with the lines above',
    '  kiln down                          removes the cluster',
  ].join('\n')
}
