#!/usr/bin/env node
import { readFileSync, realpathSync, writeSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { Fault, systemClock, version } from '@kiln/service'
import { runCommand } from './commands.ts'
import { defaultFetchSettings } from './fetch-resource.ts'
import { sendHttp } from './http-request.ts'
import { ignite } from './ignite.ts'
import { parseKernelArguments } from './kernel-arguments.ts'
import { type Options, parseOptions, usage } from './options.ts'
import { createReporter } from './reporter.ts'
import type { Run } from './run.ts'
import { validateFiles } from './validate.ts'

/** Exit codes of Ignition: 0 done, 1 a stage failed, 2 the command line is wrong. */
export async function main(argv: string[], env: Record<string, string | undefined>): Promise<number> {
  const say = (line: string): void => {
    writeSync(1, `${line}\n`)
  }
  if (argv[0] === 'validate') {
    if (argv.length < 2) return usageProblem('validate needs a file, or - for standard input')
    return validateFiles(argv.slice(1), say) ? 0 : 1
  }
  if (argv[0] === 'butane') {
    const { realButaneIo, runButane } = await import('./butane/main.ts')
    return runButane(argv.slice(1), realButaneIo(env))
  }
  if (argv.some((arg) => /^--?help$|^-h$/.test(arg))) {
    writeSync(1, usage)
    return 0
  }
  if (argv.some((arg) => /^--?version$/.test(arg))) {
    say(`kiln-ignition ${version}`)
    return 0
  }
  try {
    return await ignite(createRun(parseOptions(argv, env)))
  } catch (error) {
    if (error instanceof Fault && error.code === 'USAGE') return usageProblem(error.message)
    throw error
  }
}

function usageProblem(problem: string): number {
  writeSync(2, `kiln-ignition: ${problem}\n\n${usage}`)
  return 2
}

/** Options, kernel arguments and the real ports, put together. */
function createRun(options: Options): Run {
  const kernel = parseKernelArguments(
    options.platform === 'file' ? '' : readFileSync(options.cmdline, 'utf8'),
  )
  const bootUrl = options.bootUrl ?? kernel.bootUrl
  const machine = options.machine ?? kernel.machine
  const descriptor = options.logToStdout || options.stage === 'all' ? 1 : 2
  const reporter = createReporter({
    http: sendHttp,
    clock: systemClock,
    bootUrl,
    machine,
    write: (line) => writeSync(descriptor, line),
    own: options.diskImage === undefined,
  })
  const said = new Set<string>()
  return {
    options,
    kernel,
    reporter,
    command: runCommand,
    clock: systemClock,
    now: () => new Date(),
    fetcher: {
      http: sendHttp,
      clock: systemClock,
      network: true,
      retrying: ({ url, attempt, problem }) => reporter.say(`fetch: ${url}, try ${attempt}: ${problem}`),
    },
    settings: defaultFetchSettings,
    machine,
    privileged: process.getuid?.() === 0,
    warn(line) {
      if (!said.has(line)) reporter.say(`warning: ${line}`)
      said.add(line)
    },
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  process.exit(await main(process.argv.slice(2), process.env))
}
