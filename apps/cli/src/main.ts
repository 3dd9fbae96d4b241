import { describeError, Fault, version } from '@kiln/service'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { build } from './commands/build.ts'
import { check } from './commands/check.ts'
import { attachConsole, logs } from './commands/console.ts'
import type { CommandContext } from './commands/context.ts'
import { demo, demoMachinesMin } from './commands/demo.ts'
import { down } from './commands/down.ts'
import { image } from './commands/image.ts'
import { withAddress } from './commands/kv-program.ts'
import { labHost, simulatedMachine } from './commands/lab-host.ts'
import { machinePlan } from './commands/machine-plan.ts'
import { reprovision } from './commands/machine-reprovision.ts'
import { machines } from './commands/machines.ts'
import { addPodCommands } from './commands/pod-program.ts'
import { createKey, signRelease } from './commands/release.ts'
import { runProgram } from './commands/run-program.ts'
import { benches, conformances, runScript, verifications } from './commands/scripts.ts'
import { pods, services } from './commands/store-lists.ts'
import { test } from './commands/test.ts'
import { seedsDefault } from './commands/test-parts.ts'
import { printSummary, up } from './commands/up.ts'
import { refuseForEmbedded, upEmbedded } from './commands/up-embedded.ts'
import { halt, publish, releaseTurn, resume, updateStatus } from './commands/update.ts'
import { exitCodeOf } from './exit-code.ts'
import { addStoreCommands } from './kv/program.ts'
import { clusterRuns, refuseOtherShape } from './lab/state-folder.ts'
import { MachineFailed } from './lab/watch-machines.ts'

const cancel = new AbortController()
const context: CommandContext = {
  environment: process.env,
  signal: cancel.signal,
  live: process.stdout.isTTY === true && process.env['CI'] === undefined,
  print: (text) => void process.stdout.write(text + '\n'),
  note: (text) => void process.stderr.write(text + '\n'),
}

const wholeNumber = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('must be a whole number')
  return Number(text)
}
const positiveNumber = (text: string): number => {
  const number = wholeNumber(text)
  if (number === 0) throw new InvalidArgumentError('must be above 0')
  return number
}
const portNumber = (text: string): number => {
  const number = positiveNumber(text)
  if (number > 65_535) throw new InvalidArgumentError('must be a port, up to 65535')
  return number
}
const daysNumber = (text: string): number => {
  const number = positiveNumber(text)
  if (number > 36_500) throw new InvalidArgumentError('must be at most 36500, which is a hundred years')
  return number
}
const stateOption = (): Option =>
  new Option('--state <dir>', 'folder of the cluster (default: kiln/default below the state directory)')
const jsonOption = (): Option => new Option('--json', 'print JSON').default(false)

const program = new Command('kiln')
  .description('Bare machines become a cluster: images, virtual clusters, updates.')
  .version(version)
  .enablePositionalOptions()
  .exitOverride()
  .showHelpAfterError('(kiln --help lists the commands)')

program
  .command('up')
  .description('start a cluster of virtual machines, from empty disks over the network')
  .option('--nodes <n>', 'machines', wholeNumber, 3)
  .option('--memory <mib>', 'memory of each', wholeNumber, 1024)
  .option('--keep', 'leave the machines running if it fails', false)
  .option('--embedded', 'simulated machines on the loopback: no root, no virtual machine', false)
  .option(
    '--demo',
    'afterwards: lose the leader, then roll a second image over the machines, under writes',
    false,
  )
  .option('--boot-port <port>', "the boot server's port on the loopback (default: a free one)", portNumber)
  .option('--timeout <seconds>', 'how long the machines may take', positiveNumber, 1200)
  .addOption(stateOption())
  .addOption(jsonOption())
  .action(async (options, command) => {
    const given = (name: string): boolean => command.getOptionValueSource(name) === 'cli'
    if (options.embedded) refuseForEmbedded(['demo', 'memory', 'bootPort', 'timeout'].filter(given))
    if (options.demo && options.nodes < demoMachinesMin)
      throw new Fault(
        'USAGE',
        `--demo needs ${demoMachinesMin} machines: one is switched off, and two must stay`,
      )
    refuseOtherShape(options.state, context.environment, {
      ...(given('nodes') ? { nodes: options.nodes } : {}),
      ...(given('memory') ? { memoryMiB: options.memory } : {}),
    })
    const ranBefore = clusterRuns(options.state, context.environment)
    const summary = options.embedded
      ? await upEmbedded(options, context)
      : await up({ ...options, timeoutSeconds: options.timeout }, context)
    if (!options.demo) return printSummary(summary, options.json, context)
    const second = await demo({ ...options, endOnFailure: !options.keep && !ranBefore }, context)
    if (options.json)
      context.print(
        JSON.stringify({ ...second.summary, seconds: summary.seconds, demo: second.result }, null, 2),
      )
    else printSummary(second.summary, false, context)
  })

program
  .command('down')
  .description('end the cluster and remove it')
  .option('--keep', 'keep disks and keys for the next kiln up', false)
  .addOption(stateOption())
  .action((options) => down(options, context))

program
  .command('machines')
  .description('what each machine does')
  .addOption(stateOption())
  .addOption(jsonOption())
  .action((options) => machines(options, context))

const machine = program.command('machine').description('one machine of the boot server')
const listOf = (value: string, before: string[]): string[] => [...before, value]
machine
  .command('plan')
  .argument('<name>')
  .description('what an install would change: partitions, file systems, files, units; on copies')
  .option(
    '--disk <image>',
    "[DEVICE=]IMAGE, once for each disk (default: the machine's, or an empty one)",
    listOf,
    [],
  )
  .option('--keep <label>', 'show a reprovision that keeps this partition, once for each', listOf, [])
  .option('--offline', 'fetch nothing that the config names', false)
  .addOption(stateOption())
  .addOption(jsonOption())
  .action(async (name, options) => {
    process.exitCode = await machinePlan({ ...options, machine: name }, context)
  })

machine
  .command('reprovision')
  .argument('<name>')
  .description('let its next boot install it again, over what it has')
  .option('--keep <label>', 'a partition that stays as it is, once for each', listOf, [])
  .option('--cancel', 'withdraw it, as long as the machine has not begun', false)
  .addOption(stateOption())
  .action((name, options) => reprovision({ ...options, machine: name }, context))

program
  .command('console')
  .argument('<machine>')
  .description("a machine's serial console (Ctrl-] leaves)")
  .addOption(stateOption())
  .action((machine, options) => attachConsole({ ...options, machine }, context))

program
  .command('logs')
  .argument('<machine>')
  .description("what a machine's console said")
  .option('-f, --follow', 'go on with what it says now', false)
  .option('-n, --lines <n>', 'last lines', wholeNumber, 1000)
  .addOption(stateOption())
  .action((machine, options) => logs({ ...options, machine }, context))

const podsCommand = program
  .command('pods')
  .description('pods of all machines and how they are, their logs, events and use; a program in one')
  .addOption(stateOption())
  .addOption(jsonOption())
  .action((options) => pods(options, context))
addPodCommands(podsCommand, {
  context,
  stateOption,
  jsonOption,
  wholeNumber,
  exit: (code) => {
    process.exitCode = code
  },
})

program
  .command('services')
  .description('services and where they are reached')
  .addOption(stateOption())
  .addOption(jsonOption())
  .action((options) => services(options, context))

const kv = program
  .command('kv')
  .description("the store: keys, watches, leases, members, users, snapshots; etcdctl's words")
addStoreCommands(kv, {
  ...context,
  input: process.stdin,
  write: (bytes) => void process.stdout.write(bytes),
  exit: (code) => {
    process.exitCode = code
  },
  fail: (fault) => {
    process.exitCode = exitCodeOf(fault)
  },
})
for (const [name, does] of [
  ['snapshot', 'save, status, restore, drill: --help says more'],
  ['import', 'mirror a running etcd into a new data directory'],
] as const) {
  kv.command(name)
    .argument('[args...]')
    .description(does)
    .helpOption(false)
    .allowUnknownOption()
    .passThroughOptions()
    .action(async (args: string[]) => {
      process.exitCode = await runProgram(
        'kiln-kv',
        withAddress([name, ...args], context.environment),
        context,
      )
    })
}

kv.command('verify')
  .argument('[args...]')
  .description('three members under load and faults, checked: --seed, --nemesis; --help says more')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    process.exitCode = await runScript(verifications, 'kv', args, context)
  })

// A built kiln runs this from its launcher, without loading the rest of the command line.
program
  .command('butane')
  .argument('[args...]')
  .description('translate a Butane config to Ignition: --help says more')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    process.exitCode = await runProgram('kiln-ignition', ['butane', ...args], context)
  })

program
  .command('ignition')
  .argument('[args...]', 'simulate CONFIG --disk IMAGE, or validate FILE')
  .description('show what a config would change, or check it, before a machine boots with it')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    process.exitCode = await runProgram('kiln-ignition', args, context)
  })

program
  .command('config')
  .argument('[args...]')
  .description('build: run a module that makes a config, and translate it; types: the type of such a config')
  .helpOption(false)
  .allowUnknownOption()
  .passThroughOptions()
  .action(async (args: string[]) => {
    process.exitCode = await runProgram('kiln-ignition', ['config', ...args], context)
  })

const update = program.command('update').description("images of a group's machines")
const groupOption = (): Option => new Option('--group <name>', 'group of machines (default: default)')
update
  .command('publish')
  .argument('[version]')
  .description('make a release what the machines should run')
  .option('--image <dir>', 'a built release to stage and sign first')
  .option('--allow-downgrade', 'also to machines that run a newer one', false)
  .addOption(groupOption())
  .addOption(stateOption())
  .action((release, options) => publish({ ...options, version: release }, context))
update
  .command('status')
  .description('what should run and what does')
  .addOption(groupOption())
  .addOption(stateOption())
  .addOption(jsonOption())
  .action((options) => updateStatus(options, context))
update
  .command('halt')
  .description('stop a rollout: no machine begins after this')
  .option('--reason <text>', 'why, for everybody to read', 'halted by an operator')
  .addOption(groupOption())
  .addOption(stateOption())
  .action((options) => halt(options, context))
update
  .command('resume')
  .description('let the halted rollout of the published release go on')
  .addOption(groupOption())
  .addOption(stateOption())
  .action((options) => resume(options, context))
update
  .command('release-turn')
  .argument('[machine]', 'refused if another machine holds it')
  .description('free the turn of a machine that will not come back')
  .addOption(groupOption())
  .addOption(stateOption())
  .action((machine, options) => releaseTurn({ ...options, machine }, context))

program
  .command('build')
  .description('bundles and launchers, in dist/')
  .action(() => build(context))

program
  .command('image')
  .description('the operating system image, in dist/image/')
  .option('--version <version>', 'version of the release (default: 0.1.0)')
  .option('--variant <name>', 'normal, release, or one that fails for tests', 'normal')
  .option('--relock', "take the mirror's present packages", false)
  .option('--verify-reproducible', 'build twice and compare', false)
  .action((options) => image(options, context))

const release = program.command('release').description('keys and signatures of releases')
release
  .command('key')
  .argument('<file>')
  .description('make a key that signs releases; prints its public half')
  .action((file) => createKey({ file }, context))
release
  .command('sign')
  .argument('<dir>', 'folder of a built release')
  .requiredOption('--key <file>', 'Ed25519 key, PKCS8 PEM')
  .option('--days <n>', 'how long it may be installed', daysNumber, 365)
  .description('set its end and sign it')
  .action((folder, options) => signRelease({ ...options, folder }, context))

program
  .command('check')
  .description('format, lint, types and layout of the repository')
  .action(() => check(context))

program
  .command('test')
  .description('everything CI runs')
  .option('--fast', 'without the image and the stories in virtual machines', false)
  .option('--seeds <n>', 'runs of the simulation', positiveNumber, seedsDefault)
  .action(async (options) => {
    process.exitCode = await test(options, context)
  })

for (const [name, scripts, does] of [
  ['bench', benches, 'compare with a real peer, alternately in one run'],
  ['conformance', conformances, 'run case data or a real client against what is built'],
] as const) {
  program
    .command(name)
    .argument('<name>', Object.keys(scripts).join(', '))
    .argument('[args...]', '--help says more')
    .description(does)
    .allowUnknownOption()
    .passThroughOptions()
    .action(async (which: string, args: string[]) => {
      process.exitCode = await runScript(scripts, which, args, context)
    })
}

program
  .command('lab-host', { hidden: true })
  .requiredOption('--state <dir>')
  .action((options) => labHost(options, context.environment))

program
  .command('simulated-machine', { hidden: true })
  .requiredOption('--folder <dir>')
  .requiredOption('--mac <mac>')
  .requiredOption('--uuid <uuid>')
  .requiredOption('--boot-url <url>')
  .action((options) => simulatedMachine(options))

// Commands that are daemons have their own signals and their own end.
const isDaemon = process.argv[2] === 'lab-host' || process.argv[2] === 'simulated-machine'
if (!isDaemon) {
  process.once('SIGINT', () => cancel.abort())
  process.once('SIGTERM', () => cancel.abort())
}

try {
  await program.parseAsync()
  // Not left to the event loop: a connection to a machine that stands still would keep the command alive.
  if (!isDaemon) process.exit()
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2)
  if (error instanceof MachineFailed) {
    context.note(`\nThe console of ${error.machine} ends with:`)
    for (const line of error.consoleLines) context.note(`  ${line}`)
    context.note('')
  }
  context.note(`kiln: ${error instanceof Fault ? describeError(error) : (error as Error).stack}`)
  process.exit(exitCodeOf(error))
}
