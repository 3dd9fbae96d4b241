import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync, writeSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { parseIgnition, parsePod } from '@kiln/schemas'
import { excerptButaneProblem, machineConfigTypes, translateTree } from '@kiln/schemas/butane'
import { describeError, Fault, openFilesDirectory } from '@kiln/service'
import { sourceOfValue } from './value-tree.ts'

export const configUsage = `Usage: kiln config build [options] MACHINE.ts   runs the module and translates its default export to Ignition
       kiln config types                         prints the type of that export
Options:
  -d, --files-dir string   embed local files from this directory (default: that of the module)
  -o, --output string      write to output file instead of stdout
  -p, --pretty             output formatted json
  -s, --strict             fail on any warning
The module's code is executed, with your rights.
`

const configInvalid = 7
const evaluationMs = 60_000
const valueBytesMax = 64 * 1024 * 1024

/** What the child does: the value of the default export, or what its function gives, as JSON. */
const script = `const { default: made } = await import(process.argv[1])
const value = typeof made === 'function' ? await made() : await made
process.send(JSON.stringify(value ?? null), () => process.disconnect())`

/** `kiln config`: exit codes 0 done, 1 the module failed, 2 wrong usage, 7 the config is invalid. */
export async function runConfig(argv: readonly string[]): Promise<number> {
  const [verb, ...rest] = argv
  if (argv.some((arg) => arg === '--help' || arg === '-h')) {
    writeSync(1, configUsage)
    return 0
  }
  if (verb === 'types' && rest.length === 0) {
    writeSync(1, machineConfigTypes())
    return 0
  }
  if (verb !== 'build') return usage()
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(rest)
  } catch (error) {
    return usage((error as Error).message)
  }
  const [path] = parsed.positionals
  if (path === undefined || parsed.positionals.length > 1) return usage()
  const module = resolve(path)
  try {
    const text = readModule(module)
    return build(path, text, await evaluate(module), parsed.values)
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    writeSync(2, `kiln: ${describeError(error)}\n`)
    return 1
  }
}

function readModule(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new Fault('CONFIG_MODULE_FAILED', `${path} cannot be read`, { cause })
  }
}

type Values = ReturnType<typeof parse>['values']

function build(path: string, text: string, value: unknown, values: Values): number {
  const result = translateTree(sourceOfValue(value, text), {
    documents: { parseIgnition, parsePod },
    files: openFilesDirectory(values['files-dir'] ?? dirname(resolve(path))),
    pretty: values.pretty,
  })
  const about = { fileName: path, lines: text.split('\n'), colour: process.stderr.isTTY === true }
  for (const problem of result.problems) writeSync(2, `${excerptButaneProblem(problem, about)}\n`)
  if (!result.ok) {
    writeSync(2, `kiln: ${path}: ${result.failure}\n`)
    return configInvalid
  }
  if (values.strict && result.problems.length > 0) return configInvalid
  if (values.output) writeFileSync(values.output, `${result.output}\n`)
  else process.stdout.write(`${result.output}\n`)
  return 0
}

/** Runs the module in a process of its own, so that it ends when it is done, whatever it left open. */
export function evaluate(module: string): Promise<unknown> {
  return new Promise((settle, reject) => {
    const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script]
    const child = spawn(process.execPath, [...args, pathToFileURL(module).href], {
      // What the module prints is for the person, not part of the config.
      stdio: ['ignore', 2, 2, 'ipc'],
      timeout: evaluationMs,
      killSignal: 'SIGKILL',
    })
    let value: string | undefined
    child.once('message', (message) => {
      value = String(message)
      child.kill()
    })
    child.once('error', (cause) =>
      reject(new Fault('CONFIG_MODULE_FAILED', `${module} cannot be run`, { cause })),
    )
    child.once('close', (code, signal) => {
      if (value !== undefined && value.length <= valueBytesMax) settle(JSON.parse(value))
      else if (value !== undefined) {
        reject(
          new Fault('CONFIG_MODULE_FAILED', `${module} made a config of more than ${valueBytesMax} bytes`),
        )
      } else {
        const ended = signal ?? `exit code ${code}`
        reject(
          new Fault('CONFIG_MODULE_FAILED', `${module} gave no config (${ended}); what it said is above`),
        )
      }
    })
  })
}

function usage(problem?: string): number {
  writeSync(2, problem === undefined ? configUsage : `kiln config: ${problem}\n${configUsage}`)
  return 2
}

function parse(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      'files-dir': { type: 'string', short: 'd' },
      output: { type: 'string', short: 'o' },
      pretty: { type: 'boolean', short: 'p', default: false },
      strict: { type: 'boolean', short: 's', default: false },
    },
  })
}
