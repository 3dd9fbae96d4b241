import { type PodManifest, parsePod } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { Command, CommanderError } from 'commander'

/** An image with its flags and arguments, as the command line has it between two `---`. */
export type AppOptions = {
  name?: string
  exec?: string
  user?: string
  group?: string
  supplementaryGids?: string
  workingDir?: string
  environment?: string[]
  capsRetain?: string
  capsRemove?: string
  readonlyRootfs?: string | true
  cpu?: string
  memory?: string
  mount?: string[]
}

/** What concerns the pod as a whole. */
export type WholeOptions = {
  podName?: string
  volume?: string[]
  setEnv?: string[]
  net?: string
  hostname?: string
  dns?: string[]
  dnsSearch?: string[]
  pullPolicy?: string
}

export type App = { image: string; args: string[]; options: AppOptions }

const again = (value: string, before: string[] = []): string[] => [...before, value]

/** Adds rkt's flags of one app to a command. */
export const withAppOptions = (command: Command): Command =>
  command
    .option('--name <name>', 'of the app; made from the image by default')
    .option('--exec <path>', 'instead of the image\u2019s entry point')
    .option('--user <uid>', 'to run as')
    .option('--group <gid>', 'to run as')
    .option('--supplementary-gids <gids>', 'further groups of the pod, with commas between')
    .option('--working-dir <path>', 'where it starts')
    .option('--environment <name=value>', 'a variable of this app (may be repeated)', again)
    .option('--caps-retain <names>', 'all capabilities it has, with commas between')
    .option('--caps-remove <names>', 'capabilities it has not, with commas between')
    .option('--readonly-rootfs [bool]', 'it cannot write to its image')
    .option('--cpu <amount>', 'limit, such as 500m')
    .option('--memory <amount>', 'limit, such as 128Mi')
    .option('--mount <volume=NAME,target=PATH>', 'where a volume is (may be repeated)', again)

/** Adds rkt's flags of a pod to a command. */
export const withWholeOptions = (command: Command): Command =>
  command
    .option('--pod-name <name>', 'of the pod; made from the first image by default')
    .option(
      '--volume <spec>',
      'NAME,kind=host,source=PATH[,readOnly=true] or NAME,kind=empty (may be repeated)',
      again,
    )
    .option('--set-env <name=value>', 'a variable of all apps (may be repeated)', again)
    .option('--net <networks>', 'host, none, or names of networks with commas between')
    .option('--hostname <name>', 'of the pod')
    .option('--dns <address>', 'a name server (may be repeated)', again)
    .option('--dns-search <domain>', 'where short names are looked for (may be repeated)', again)
    .option('--pull-policy <policy>', 'never, new or update')

/**
 * Splits a command line of `run` or `prepare` at `---`: the first app stays with the command, each further one has its own flags. Other commands
 * are left as they are: `---` is theirs. Pure.
 */
export function splitApps(argv: string[]): { argv: string[]; more: string[][] } {
  const verb = argv.findIndex((word, index) => !word.startsWith('-') && argv[index - 1] !== '--socket')
  const first = argv.indexOf('---')
  if (first < 0 || !['run', 'prepare'].includes(argv[verb] ?? '')) return { argv, more: [] }
  const more: string[][] = []
  for (const word of argv.slice(first)) {
    if (word === '---') more.push([])
    else more.at(-1)!.push(word)
  }
  return { argv: argv.slice(0, first), more }
}

/** Reads a further app. */
export function readApp(words: string[]): App {
  const command = withAppOptions(new Command('app'))
    .argument('<image>')
    .argument('[args...]')
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, writeOut: () => undefined })
  try {
    command.parse(words, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    throw new Fault('REQUEST_INVALID', `after ---: ${error.message}`)
  }
  const [image, ...args] = command.args
  return { image: image!, args, options: command.opts<AppOptions>() }
}

/** The pod that the flags of `run` and `prepare` describe: run once, each app a container. Pure but for its name. */
export function podOfApps(apps: App[], whole: WholeOptions, unique: string): PodManifest {
  const names = apps.map(({ image, options }) => options.name ?? appName(image))
  const groups = apps.flatMap(({ options }) => options.supplementaryGids?.split(',') ?? [])
  const { net } = whole
  const volumes = (whole.volume ?? []).map(volumeOf)
  const dns = { nameservers: whole.dns ?? [], searches: whole.dnsSearch ?? [] }
  const { pod, problems } = parsePod({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: whole.podName ?? `${names[0]}-${unique}`,
      ...(net === undefined || net === 'host' ? {} : { annotations: { 'kiln.dev/networks': net } }),
    },
    spec: {
      restartPolicy: 'Never',
      hostNetwork: net === 'host',
      ...(whole.hostname === undefined ? {} : { hostname: whole.hostname }),
      ...(dns.nameservers.length > 0 ? { dnsPolicy: 'None', dnsConfig: dns } : {}),
      ...(dns.nameservers.length === 0 && dns.searches.length > 0
        ? { dnsConfig: { searches: dns.searches } }
        : {}),
      ...(groups.length > 0
        ? { securityContext: { supplementalGroups: groups.map((gid) => id(gid, '--supplementary-gids')) } }
        : {}),
      volumes: volumes.map(({ readOnly: _, ...volume }) => volume),
      containers: apps.map((app, index) => containerOf(app, names[index]!, whole, volumes)),
    },
  })
  if (pod) return pod
  throw new Fault('POD_INVALID', problems.map(({ path, message }) => `${path} ${message}`).join('; '))
}

function containerOf(
  { image, args, options }: App,
  name: string,
  whole: WholeOptions,
  volumes: ReturnType<typeof volumeOf>[],
): object {
  const env = new Map([...(whole.setEnv ?? []), ...(options.environment ?? [])].map(pair))
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
    resources: { limits },
    securityContext: {
      ...(options.user === undefined ? {} : { runAsUser: id(options.user, '--user') }),
      ...(options.group === undefined ? {} : { runAsGroup: id(options.group, '--group') }),
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

function volumeOf(text: string): { name: string; readOnly: boolean; hostPath?: object; emptyDir?: object } {
  const [name = '', ...rest] = text.split(',')
  const { kind, source, readOnly } = fields(rest.join(','), '--volume', ['kind', 'source', 'readOnly'])
  if (kind === 'empty' && source === undefined) return { name, readOnly: readOnly === 'true', emptyDir: {} }
  if (kind !== 'host' || source === undefined)
    throw new Fault('REQUEST_INVALID', `--volume ${text}: kind is host, with a source, or empty`)
  return { name, readOnly: readOnly === 'true', hostPath: { path: source } }
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

/** Names of the image's own passwd are what the image says; here only numbers can be meant. */
function id(text: string, flag: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Fault('REQUEST_INVALID', `${flag} takes a number, not ${text}`)
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
