import type { Command, Option } from 'commander'
import type { CommandContext } from './context.ts'
import { podEvents, podExec, podLogs, podStats } from './pod-commands.ts'

type Ports = {
  context: CommandContext
  exit(code: number): void
  stateOption(): Option
  jsonOption(): Option
  /** Reads an option's value, or says that it is none. */
  wholeNumber(text: string): number
}

/** What is done with pods on whatever machine they run: `kiln pods logs|exec|events|stats`. */
export function addPodCommands(pods: Command, ports: Ports): void {
  const { context, exit, stateOption, jsonOption, wholeNumber } = ports
  const container = ['-c, --container <name>', 'which container; the first by default'] as const
  pods
    .enablePositionalOptions()
    .addHelpText(
      'after',
      '\nA pod is named MACHINE/POD, or by its name or uuid where only one machine has it.',
    )
  pods
    .command('logs <pod>')
    .description('what its containers write; of a pod that is over as well, by MACHINE/POD')
    .option('-f, --follow', 'go on with what they write now', false)
    .option('-n, --lines <n>', 'the last lines only', wholeNumber)
    .option(...container)
    .addOption(stateOption())
    .action((pod, options) => podLogs({ ...options, pod }, context))
  pods
    .command('exec <pod> <command...>')
    .description('run a program in a container, with input, output and exit code of here')
    .option('-t, --tty', 'with a terminal of its own, for shells and the like', false)
    .option('-i, --stdin', 'hand on the input, which is done anyway')
    .option(...container)
    .addOption(stateOption())
    .passThroughOptions()
    .action(async (pod, args: string[], options) => {
      exit(await podExec({ ...options, pod, args: args[0] === '--' ? args.slice(1) : args }, context))
    })
  pods
    .command('events [pod]')
    .description('what happened to a pod, or to all pods of all machines, and why')
    .option('-f, --follow', 'go on as it happens', false)
    .addOption(stateOption())
    .addOption(jsonOption())
    .action((pod, options) => podEvents({ ...options, pod }, context))
  pods
    .command('stats [pod]')
    .description('processor time, memory and processes of the containers of a pod, or of all')
    .addOption(stateOption())
    .addOption(jsonOption())
    .action((pod, options) => podStats({ ...options, pod }, context))
}
