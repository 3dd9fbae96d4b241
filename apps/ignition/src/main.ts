#!/usr/bin/env node
import { realpathSync, writeSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { describeError, Fault, version } from '@kiln/service'
import { runCommand } from './commands.ts'
import { ignite } from './ignite.ts'
import { type Options, parseOptions, platformNames, usage } from './options.ts'
import type { Run } from './run.ts'
import { createRun } from './run-of-machine.ts'
import { validateFiles } from './validate.ts'

const isHelp = (arg: string): boolean => /^--?help$|^-h$/.test(arg)

/** Exit codes of Ignition: 0 done, 1 a stage failed, 2 the command line is wrong, 3 no stage could begin. */
export async function main(argv: string[], env: Record<string, string | undefined>): Promise<number> {
  const say = (line: string): void => {
    writeSync(1, `${line}\n`)
  }
  if (argv[0] === 'validate' && !argv.some(isHelp)) {
    const flag = argv.slice(1).find((arg) => /^-./.test(arg))
    if (flag !== undefined) return usageProblem(`validate has no flag ${flag}`)
    if (argv.length < 2) return usageProblem('validate needs a file, or - for standard input')
    return validateFiles(argv.slice(1), say) ? 0 : 1
  }
  if (argv[0] === 'butane') {
    const { realButaneIo, runButane } = await import('./butane/main.ts')
    return await runButane(argv.slice(1), realButaneIo(env))
  }
  if (argv[0] === 'simulate') {
    const { simulateCommand } = await import('./simulate/command.ts')
    const write = (descriptor: 1 | 2, text: string): void => void writeSync(descriptor, text)
    try {
      return await simulateCommand(argv.slice(1), env, write)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      write(2, `kiln-ignition: ${describeError(error)}\n`)
      return error.code === 'USAGE' ? 2 : 1
    }
  }
  if (argv[0] === 'apply') {
    const { applyPorts, runApply } = await import('./apply.ts')
    const write = (descriptor: 1 | 2, text: string): void => void writeSync(descriptor, text)
    const create = (options: Options): Run => createRun(options, env, (text) => write(2, text))
    return await runApply(argv.slice(1), applyPorts(env, write, create))
  }
  if (argv[0] === 'rmcfg') {
    const { removeConfig } = await import('./remove-config.ts')
    const write = (descriptor: 1 | 2, text: string): void => void writeSync(descriptor, text)
    return await removeConfig(argv.slice(1), { command: runCommand, platforms: platformNames, write })
  }
  if (argv[0] === 'config') {
    const { runConfig } = await import('./config-build/command.ts')
    return await runConfig(argv.slice(1))
  }
  if (argv.some(isHelp)) {
    writeSync(1, usage)
    return 0
  }
  if (argv.some((arg) => /^--?version$/.test(arg))) {
    say(`kiln-ignition ${version}`)
    return 0
  }
  try {
    const options = parseOptions(argv, env)
    const descriptor = options.logToStdout || options.stage === 'all' ? 1 : 2
    let run: Run
    try {
      run = createRun(options, env, (text) => void writeSync(descriptor, text))
    } catch (error) {
      writeSync(2, `kiln-ignition: no stage can begin: ${describeError(error)}\n`)
      return 3
    }
    return await ignite(run)
  } catch (error) {
    if (error instanceof Fault && error.code === 'USAGE') return usageProblem(error.message)
    throw error
  }
}

function usageProblem(problem: string): number {
  writeSync(2, `kiln-ignition: ${problem}\n\n${usage}`)
  return 2
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  process.exit(await main(process.argv.slice(2), process.env))
}
