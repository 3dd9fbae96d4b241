import {
  type AppOption,
  networksAnnotation,
  type PodManifest,
  type PodOptions,
  parsePod,
  podOptionsAnnotation,
} from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { App, AppOptions, NetworkOptions, Surroundings, WholeOptions } from './app-flags.ts'

/** The pod that the flags of `run` and `prepare` describe: run once, each app a container. Pure. */
export function podOfApps(
  apps: App[],
  whole: WholeOptions,
  unique: string,
  { environment, envFiles }: Surroundings = { environment: {}, envFiles: [] },
): PodManifest {
  const names = apps.map(({ image, options }) => options.name ?? appName(image))
  const groups = apps.flatMap(({ options }) => options.supplementaryGids?.split(',') ?? [])
  const volumes = (whole.volume ?? []).map(volumeOf)
  const inherited = whole.inheritEnv ? environment : undefined
  const extra: PodOptions = {
    apps: filled(apps.map(({ options }, index) => [names[index]!, appOption(options, inherited)])),
    volumes: filled(volumes.map(({ name, owner }) => [name, owner])),
  }
  const hasExtra = Object.keys(extra.apps).length + Object.keys(extra.volumes).length > 0
  const own = (flag: 'userAnnotation' | 'userLabel'): Record<string, string> =>
    Object.fromEntries(apps.flatMap(({ options }) => (options[flag] ?? []).map(pair)))
  const variables = [...envFiles.flatMap(envLines), ...(whole.setEnv ?? [])]
  const draft = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: whole.podName ?? `${names[0]}-${unique}`,
      labels: own('userLabel'),
      annotations: {
        ...own('userAnnotation'),
        ...(hasExtra ? { [podOptionsAnnotation]: JSON.stringify(extra) } : {}),
      },
    },
    spec: {
      restartPolicy: 'Never',
      hostIPC: hostIpc(whole.ipc),
      ...(groups.length > 0
        ? { securityContext: { supplementalGroups: groups.map((gid) => id(gid, '--supplementary-gids')) } }
        : {}),
      volumes: volumes.map(({ readOnly: _, owner: __, ...volume }) => volume),
      containers: apps.map((app, index) => ({
        ...containerOf(app, names[index]!, whole, variables, volumes),
        // The apps of a pod share its network: a port of the machine is that of any of them.
        ...(index === 0 ? { ports: (whole.port ?? []).map(portOf) } : {}),
      })),
    },
  }
  return withNetwork(draft, whole)
}

/** A manifest with what flags choose of its network and name; what they do not name stays. Pure. */
export function withNetwork(
  pod: { metadata: { annotations: Record<string, string> }; spec: object },
  { net, hostname, dns = [], dnsSearch = [] }: NetworkOptions,
): PodManifest {
  const { [networksAnnotation]: before, ...annotations } = pod.metadata.annotations
  const networks = net === undefined ? before : net === 'host' ? undefined : net
  const { pod: read, problems } = parsePod({
    ...pod,
    metadata: {
      ...pod.metadata,
      annotations: {
        ...annotations,
        ...(networks === undefined ? {} : { [networksAnnotation]: networks }),
      },
    },
    spec: {
      ...pod.spec,
      ...(net === undefined ? {} : { hostNetwork: net === 'host' }),
      ...(hostname === undefined ? {} : { hostname }),
      ...(dns.length > 0 ? { dnsPolicy: 'None', dnsConfig: { nameservers: dns, searches: dnsSearch } } : {}),
      ...(dns.length === 0 && dnsSearch.length > 0 ? { dnsConfig: { searches: dnsSearch } } : {}),
    },
  })
  if (read) return read
  throw new Fault('POD_INVALID', problems.map(({ path, message }) => `${path} ${message}`).join('; '))
}

/** What Kubernetes' manifest has no field for. */
function appOption(options: AppOptions, inherited: Record<string, string> | undefined): AppOption {
  const { user, group, oomScoreAdjust, seccomp } = options
  return {
    ...(user === undefined || isNumber(user) ? {} : { user }),
    ...(group === undefined || isNumber(group) ? {} : { group }),
    ...(oomScoreAdjust === undefined
      ? {}
      : { oomScoreAdjust: count(oomScoreAdjust, '--oom-score-adjust', -1000, 1000) }),
    ...(seccomp === undefined ? {} : { seccomp: seccompSet(seccomp) }),
    ...(inherited === undefined ? {} : { env: inherited }),
  }
}

function seccompSet(text: string): NonNullable<AppOption['seccomp']> {
  const parts = text.split(',').map((part) => part.trim())
  const settings = parts.filter((part) => part.includes('='))
  const { mode, errno } =
    settings.length === 0 ? {} : fields(settings.join(','), '--seccomp', ['mode', 'errno'])
  const calls = parts.filter((part) => part !== '' && !part.includes('='))
  if ((mode !== 'retain' && mode !== 'remove') || calls.length === 0)
    throw new Fault('REQUEST_INVALID', `--seccomp takes mode=retain or mode=remove and calls, not ${text}`)
  return { mode, calls, ...(errno === undefined ? {} : { errno }) }
}

/** rkt names the ports of images by number and protocol. */
function portOf(text: string): object {
  const [, port, protocol, host] = /^(\d{1,5})(-tcp|-udp)?:(\d{1,5})$/.exec(text) ?? []
  if (port === undefined)
    throw new Fault('REQUEST_INVALID', `--port takes NUMBER[-tcp|-udp]:HOSTPORT, not ${text}`)
  return {
    containerPort: Number(port),
    hostPort: Number(host),
    protocol: protocol === '-udp' ? 'UDP' : 'TCP',
  }
}

function hostIpc(text = 'auto'): boolean {
  if (!['auto', 'private', 'parent'].includes(text))
    throw new Fault('REQUEST_INVALID', `--ipc is auto, private or parent, not ${text}`)
  return text === 'parent'
}

/** Lines `NAME=VALUE`; empty ones and those that begin with `#` or `;` say nothing. */
function envLines(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => !/^\s*([#;]|$)/.test(line))
}

/** Those that say anything. */
function filled<T extends object>(entries: [string, T | undefined][]): Record<string, T> {
  return Object.fromEntries(
    entries.filter(
      (entry): entry is [string, T] => entry[1] !== undefined && Object.keys(entry[1]).length > 0,
    ),
  )
}

function containerOf(
  { image, args, options }: App,
  name: string,
  whole: WholeOptions,
  variables: string[],
  volumes: ReturnType<typeof volumeOf>[],
): object {
  const env = new Map([...variables, ...(options.environment ?? [])].map(pair))
  if (options.capsRetain !== undefined && options.capsRemove !== undefined)
    throw new Fault('REQUEST_INVALID', '--caps-retain and --caps-remove exclude each other')
  const capabilities =
    options.capsRetain !== undefined
      ? { drop: ['ALL'], add: caps(options.capsRetain) }
      : { drop: caps(options.capsRemove ?? '') }
  const limits = {
    ...(options.cpu === undefined ? {} : { cpu: options.cpu }),
    ...(options.memory === undefined ? {} : { memory: options.memory }),
  }
  return {
    name,
    image,
    ...(whole.pullPolicy === undefined ? {} : { imagePullPolicy: pullPolicy(whole.pullPolicy) }),
    ...(options.exec === undefined ? {} : { command: [options.exec] }),
    ...(args.length > 0 ? { args } : {}),
    ...(options.workingDir === undefined ? {} : { workingDir: options.workingDir }),
    env: [...env].map(([key, value]) => ({ name: key, value })),
    resources: {
      limits,
      requests:
        options.cpuShares === undefined
          ? {}
          : { cpu: `${Math.ceil((count(options.cpuShares, '--cpu-shares', 2, 262_144) * 1000) / 1024)}m` },
    },
    securityContext: {
      ...(isNumber(options.user) ? { runAsUser: Number(options.user) } : {}),
      ...(isNumber(options.group) ? { runAsGroup: Number(options.group) } : {}),
      readOnlyRootFilesystem: options.readonlyRootfs === true || options.readonlyRootfs === 'true',
      capabilities,
    },
    volumeMounts: (options.mount ?? []).map((text) => {
      const { volume, target } = fields(text, '--mount', ['volume', 'target'])
      return {
        name: volume,
        mountPath: target,
        readOnly: volumes.find((each) => each.name === volume)?.readOnly ?? false,
      }
    }),
  }
}

type Volume = {
  name: string
  readOnly: boolean
  hostPath?: object
  emptyDir?: object
  owner?: PodOptions['volumes'][string]
}

function volumeOf(text: string): Volume {
  const [name = '', ...rest] = text.split(',')
  const known = ['kind', 'source', 'readOnly', 'mode', 'uid', 'gid']
  const { kind, source, mode, uid, gid, ...others } = fields(rest.join(','), '--volume', known)
  const readOnly = others['readOnly'] === 'true'
  if (kind === 'empty' && source === undefined) {
    if (mode !== undefined && !/^[0-7]{1,4}$/.test(mode))
      throw new Fault('REQUEST_INVALID', `--volume ${text}: mode is octal, such as 0755`)
    const owner = {
      ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }),
      ...(uid === undefined ? {} : { uid: id(uid, '--volume uid=') }),
      ...(gid === undefined ? {} : { gid: id(gid, '--volume gid=') }),
    }
    return { name, readOnly, emptyDir: {}, owner }
  }
  if (kind !== 'host' || source === undefined || (mode ?? uid ?? gid) !== undefined)
    throw new Fault(
      'REQUEST_INVALID',
      `--volume ${text}: kind is host, with a source, or empty, with mode, uid and gid`,
    )
  return { name, readOnly, hostPath: { path: source } }
}

function fields(text: string, flag: string, known: string[]): Record<string, string | undefined> {
  const read = Object.fromEntries(text.split(',').map(pair))
  const unknown = Object.keys(read).find((key) => !known.includes(key))
  if (unknown !== undefined)
    throw new Fault('REQUEST_INVALID', `${flag} has no ${unknown}: ${known.join(', ')} it has`)
  return read
}

function pair(text: string): [string, string] {
  const at = text.indexOf('=')
  if (at < 1) throw new Fault('REQUEST_INVALID', `${text} is not of the form name=value`)
  return [text.slice(0, at), text.slice(at + 1)]
}

const isNumber = (text: string | undefined): text is string => text !== undefined && /^\d{1,10}$/.test(text)

function count(text: string, flag: string, min: number, max: number): number {
  const value = /^-?\d{1,7}$/.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max) return value
  throw new Fault('REQUEST_INVALID', `${flag} takes a number from ${min} to ${max}, not ${text}`)
}

function id(text: string, flag: string): number {
  if (!isNumber(text)) throw new Fault('REQUEST_INVALID', `${flag} takes a number, not ${text}`)
  return Number(text)
}

const caps = (text: string): string[] =>
  text.split(',').flatMap((name) => name.trim().toUpperCase().replace(/^CAP_/, '') || [])

function pullPolicy(text: string): string {
  const policies: Record<string, string> = { never: 'Never', new: 'IfNotPresent', update: 'Always' }
  const policy = policies[text]
  if (policy === undefined)
    throw new Fault('REQUEST_INVALID', `--pull-policy is never, new or update, not ${text}`)
  return policy
}

/** A name for what an image has: the last part of its own, as names of containers are. */
function appName(image: string): string {
  const last = image.replace(/@.*$/, '').split('/').at(-1) ?? ''
  const plain = last
    .replace(/(:[^:]*|\.tar)$/, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
  return plain.replace(/^-+/, '').slice(0, 30).replace(/-+$/, '') || 'app'
}
