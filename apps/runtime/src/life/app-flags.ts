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
  seccomp?: string
  oomScoreAdjust?: string
  cpu?: string
  cpuShares?: string
  memory?: string
  mount?: string[]
  userAnnotation?: string[]
  userLabel?: string[]
}

/** What concerns the pod as a whole. */
export type WholeOptions = NetworkOptions & {
  podName?: string
  volume?: string[]
  setEnv?: string[]
  setEnvFile?: string[]
  inheritEnv?: boolean
  port?: string[]
  ipc?: string
  pullPolicy?: string
}

/** What may still be chosen when a prepared pod is run. */
export type NetworkOptions = {
  net?: string
  hostname?: string
  dns?: string[]
  dnsSearch?: string[]
}

/** Variables that the command line only names a source of. */
export type Surroundings = { environment: Record<string, string>; envFiles: string[] }

export type App = { image: string; args: string[]; options: AppOptions }

const again = (value: string, before: string[] = []): string[] => [...before, value]

/** Adds rkt's flags of one app to a command. */
export const withAppOptions = (command: Command): Command =>
  command
    .option('--name <name>', 'of the app; made from the image by default')
    .option('--exec <path>', 'instead of the image\u2019s entry point')
    .option(
      '--user <user>',
      'to run as: a number, a name of the image, or a file of it, whose owner is taken',
    )
    .option('--group <group>', 'to run as, likewise')
    .option('--supplementary-gids <gids>', 'further groups of the pod, with commas between')
    .option('--working-dir <path>', 'where it starts')
    .option('--environment <name=value>', 'a variable of this app (may be repeated)', again)
    .option('--caps-retain <names>', 'all capabilities it has, with commas between')
    .option('--caps-remove <names>', 'capabilities it has not, with commas between')
    .option('--readonly-rootfs [bool]', 'it cannot write to its image')
    .option(
      '--seccomp <set>',
      'mode=retain|remove[,errno=NAME],CALL,... the system calls it keeps, or loses; @docker/default-whitelist and the like are sets',
    )
    .option('--oom-score-adjust <number>', 'who goes first when memory runs out, -1000 to 1000')
    .option('--cpu <amount>', 'limit, such as 500m')
    .option('--cpu-shares <number>', 'weight of its processor time; 1024 is that of one CPU')
    .option('--memory <amount>', 'limit, such as 128Mi')
    .option('--mount <volume=NAME,target=PATH>', 'where a volume is (may be repeated)', again)
    .option('--user-annotation <name=value>', 'in the pod\u2019s annotations (may be repeated)', again)
    .option('--user-label <name=value>', 'in the pod\u2019s labels (may be repeated)', again)

/** Adds rkt's flags of a pod to a command. */
export const withWholeOptions = (command: Command): Command =>
  withNetworkOptions(command)
    .option('--pod-name <name>', 'of the pod; made from the first image by default')
    .option(
      '--volume <spec>',
      'NAME,kind=host,source=PATH[,readOnly=true] or NAME,kind=empty[,mode=0755,uid=0,gid=0] (may be repeated)',
      again,
    )
    .option('--set-env <name=value>', 'a variable of all apps (may be repeated)', again)
    .option(
      '--set-env-file <file>',
      'lines NAME=VALUE for all apps, which --set-env wins over (may be repeated)',
      again,
    )
    .option('--inherit-env', 'hand on this command\u2019s variables; those of the image win over them')
    .option(
      '--port <spec>',
      'NUMBER[-tcp|-udp]:HOSTPORT, a port of an app at the machine (may be repeated)',
      again,
    )
    .option('--ipc <namespace>', 'auto or private: of its own; parent: the machine\u2019s')
    .option('--pull-policy <policy>', 'never, new or update')

/** Adds rkt's flags of a pod's network, which `run-prepared` has as well. */
export const withNetworkOptions = (command: Command): Command =>
  command
    .option('--net <networks>', 'host, none, or names of networks with commas between')
    .option('--hostname <name>', 'of the pod')
    .option('--dns <address>', 'a name server (may be repeated)', again)
    .option('--dns-search <domain>', 'where short names are looked for (may be repeated)', again)

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
