import { readFile } from 'node:fs/promises'
import { EtcdClient, type EtcdClientOptions } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import { adminIdentity, storeEndpoints } from '../lab/cluster-store.ts'
import { readLab, stateFolder } from '../lab/state-folder.ts'
import type { KvPorts } from './ports.ts'
import { readSecret } from './secret.ts'

/** What every command takes; names are those of etcdctl's flags. */
export type ConnectionFlags = {
  endpoints?: string
  cacert?: string
  cert?: string
  key?: string
  user?: string
  password?: string
  dialTimeout?: string
  commandTimeout?: string
  state?: string
}

/** Where a store is and who asks. */
export type StoreAddress = {
  endpoints: string[]
  cacert?: string | undefined
  cert?: string | undefined
  key?: string | undefined
  user?: string | undefined
  password?: string | undefined
  timeoutMs: number
}

const timeoutDefault = '5s'
const alone = 'http://127.0.0.1:2379'

/**
 * Flags, then `ETCDCTL_*` of the environment, then the cluster of `kiln up` in the state folder, then a member on this host. An endpoint
 * without a scheme is https where certificates are given.
 */
export function storeAddress(flags: ConnectionFlags, environment: NodeJS.ProcessEnv): StoreAddress {
  const setting = (flag: keyof ConnectionFlags, name: string): string | undefined =>
    textOf(flags[flag]) ?? (environment[`ETCDCTL_${name}`] || undefined)
  const common = {
    user: setting('user', 'USER'),
    password: setting('password', 'PASSWORD'),
    timeoutMs: milliseconds(setting('commandTimeout', 'COMMAND_TIMEOUT') ?? timeoutDefault),
  }
  if (environment['ETCDCTL_INSECURE_SKIP_TLS_VERIFY'] === 'true')
    throw new Fault('USAGE', 'ETCDCTL_INSECURE_SKIP_TLS_VERIFY: certificates are always checked', {
      remedy: 'name the CA with --cacert',
    })
  const endpoints = setting('endpoints', 'ENDPOINTS')
  const files = {
    cacert: setting('cacert', 'CACERT'),
    cert: setting('cert', 'CERT'),
    key: setting('key', 'KEY'),
  }
  if (endpoints === undefined) {
    const state = stateFolder(flags.state, environment)
    const lab = readLab(state)
    if (lab !== undefined || flags.state !== undefined) {
      if (lab === undefined)
        throw new Fault('CLUSTER_UNKNOWN', `no cluster in ${state.root}`, {
          remedy: 'start one with: kiln up',
        })
      const { ca, cert, key } = adminIdentity(state)
      return { ...common, endpoints: storeEndpoints(lab), cacert: ca, cert, key }
    }
    return { ...common, ...files, endpoints: [alone] }
  }
  const scheme = (files.cacert ?? files.cert) ? 'https' : 'http'
  return {
    ...common,
    ...files,
    endpoints: endpoints
      .split(',')
      .map((endpoint) => endpoint.trim())
      .filter((endpoint) => endpoint !== '')
      .map((endpoint) => (endpoint.includes('://') ? endpoint : `${scheme}://${endpoint}`)),
  }
}

/** What a client of the store at this address is made from; asks for the password of a user who gave none. */
export async function clientOptions(address: StoreAddress, ports: KvPorts): Promise<EtcdClientOptions> {
  const read = async (path: string | undefined): Promise<string | undefined> => {
    if (path === undefined) return undefined
    return readFile(path, 'utf8').catch((cause: unknown) => {
      throw new Fault('STORE_TLS_FILE', `${path} cannot be read`, { cause })
    })
  }
  const [ca, cert, key] = await Promise.all([address.cacert, address.cert, address.key].map(read))
  if ((cert === undefined) !== (key === undefined))
    throw new Fault('USAGE', 'a certificate needs its key: give both')
  const options: EtcdClientOptions = { endpoints: address.endpoints, timeoutMs: address.timeoutMs }
  if (ca !== undefined || cert !== undefined)
    options.tls = { ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) } as NonNullable<
      typeof options.tls
    >
  if (address.user !== undefined) options.user = await userOf(address.user, address.password, ports)
  return options
}

async function userOf(
  given: string,
  password: string | undefined,
  ports: KvPorts,
): Promise<{ name: string; password: string }> {
  const colon = given.indexOf(':')
  if (password !== undefined) return { name: given, password }
  if (colon >= 0) return { name: given.slice(0, colon), password: given.slice(colon + 1) }
  return { name: given, password: await readSecret(`Password of ${given}: `, ports) }
}

export async function openClient(flags: ConnectionFlags, ports: KvPorts): Promise<EtcdClient> {
  return new EtcdClient(await clientOptions(storeAddress(flags, ports.environment), ports))
}

/** The same address as flags of kiln-kv's own commands. */
export function connectionArguments(flags: ConnectionFlags, environment: NodeJS.ProcessEnv): string[] {
  const { endpoints, cacert, cert, key } = storeAddress(flags, environment)
  const files = Object.entries({ cacert, cert, key }).flatMap(([name, path]) =>
    path ? [`--${name}`, path] : [],
  )
  return ['--endpoints', endpoints.join(','), ...files]
}

/** `user add --no-password` is a flag beside the password one signs in with; commander gives both one name. */
const textOf = (flag: unknown): string | undefined => (typeof flag === 'string' ? flag : undefined)

/** Go's duration, `1m30s`, as etcdctl takes it; a bare number counts seconds. */
export function milliseconds(text: string): number {
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const units: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 }
  if (!/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(text))
    throw new Fault('USAGE', `${text} is not a duration like 5s or 1m30s`)
  let sum = 0
  for (const [, amount, , unit] of text.matchAll(/(\d+(\.\d+)?)(h|ms|m|s)/g))
    sum += Number(amount) * units[unit!]!
  return sum
}
