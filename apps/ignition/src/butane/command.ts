import { parseArgs } from 'node:util'
import {
  type Documents,
  describeButaneProblem,
  excerptButaneProblem,
  translateButane,
} from '@kiln/schemas/butane'
import { type FilesDirectory, version } from '@kiln/service'

/** What the command reads and writes; tests and the case runner bring their own. */
export type ButaneIo = {
  /** Standard input when there is no path. Throws what the system says. */
  read(path: string | undefined): string
  /** Standard output when there is no path. */
  write(path: string | undefined, text: string): void
  /** A piece of standard error. */
  complain(text: string): void
  openFiles(folder: string): FilesDirectory
  /** Loads the checks of documents that the source has written into it, which few have. */
  loadDocuments(): Promise<Documents>
  /** Whether `--color auto` means colour. */
  colourful: boolean
}

export const butaneUsage = `Usage: kiln butane [options] [input-file]
Translates a Butane config (YAML) to Ignition; reads standard input without a file.
Options:
  -c, --check              check config without producing output
      --color string       control color output: "auto", "always", or "never" (default "auto")
  -d, --files-dir string   allow embedding local files from this directory
  -h, --help               show usage and exit
  -o, --output string      write to output file instead of stdout
  -p, --pretty             output formatted json
  -r, --raw                never wrap in a MachineConfig; force Ignition output
      --raw-errors         show raw errors, rather than pretty printing them
  -s, --strict             fail on any warning
  -V, --version            print the version and exit
`

const flags = {
  check: { type: 'boolean', short: 'c', default: false },
  color: { type: 'string', default: 'auto' },
  'files-dir': { type: 'string', short: 'd' },
  help: { type: 'boolean', short: 'h', default: false },
  input: { type: 'string' },
  output: { type: 'string', short: 'o' },
  pretty: { type: 'boolean', short: 'p', default: false },
  raw: { type: 'boolean', short: 'r', default: false },
  'raw-errors': { type: 'boolean', default: false },
  strict: { type: 'boolean', short: 's', default: false },
  version: { type: 'boolean', short: 'V', default: false },
} as const

/** The command line of Butane. Exit codes: 0 done, 1 the config has an error (or, strictly, a warning), 2 wrong usage. */
export async function runButane(argv: readonly string[], io: ButaneIo): Promise<number> {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(argv)
  } catch (error) {
    io.complain(`${(error as Error).message}\n${butaneUsage}`)
    return 2
  }
  const { values, positionals } = parsed
  const given = values.input ? [values.input, ...positionals] : positionals
  if (given.length > 1 || !['auto', 'always', 'yes', 'never', 'no'].includes(values.color)) {
    io.complain(butaneUsage)
    return 2
  }
  if (values.help) {
    io.write(undefined, butaneUsage)
    return 0
  }
  if (values.version) {
    io.write(undefined, `Butane of Kiln ${version}\n`)
    return 0
  }
  const [input] = given
  const fileName = input ?? '<stdin>'
  let source: string
  try {
    source = io.read(input)
  } catch (error) {
    io.complain(`failed to read ${fileName}: ${(error as Error).message}\n`)
    return 1
  }
  return await translate(source, fileName, values, io)
}

async function translate(source: string, fileName: string, values: Values, io: ButaneIo): Promise<number> {
  const folder = values['files-dir']
  const result = translateButane(source, {
    documents: nested.test(source) ? await io.loadDocuments() : noDocuments,
    raw: values.raw,
    pretty: values.pretty,
    ...(folder ? { files: io.openFiles(folder) } : {}),
  })
  const colour = values.color === 'auto' ? io.colourful : ['always', 'yes'].includes(values.color)
  const lines = source.split('\n')
  const reports = result.problems.map((problem) =>
    values['raw-errors']
      ? `${describeButaneProblem(problem)}\n`
      : `${excerptButaneProblem(problem, { fileName, lines, colour })}\n`,
  )
  io.complain(reports.join(values['raw-errors'] ? '' : '\n'))
  if (!result.ok) {
    io.complain(`Error translating config: ${result.failure}\n`)
    return 1
  }
  if (values.strict && result.problems.length > 0) {
    io.complain('Config produced warnings and --strict was specified\n')
    return 1
  }
  if (values.check) return 0
  try {
    io.write(values.output, `${result.output}\n`)
  } catch (error) {
    io.complain(`failed to write ${values.output ?? 'the output'}: ${(error as Error).message}\n`)
    return 1
  }
  return 0
}

/** A document within this one needs one of these names, if they are not written in escapes. */
const nested = /merge|replace|pods/

const problem = 'write the keys merge, replace and pods as they are'
const noDocuments: Documents = {
  parseIgnition: () => ({
    problems: [{ path: '$', severity: 'error', message: problem, line: 0, column: 0 }],
  }),
  parsePod: () => ({ pod: undefined, problems: [{ path: '', message: problem }] }),
}

type Values = ReturnType<typeof parse>['values']

function parse(argv: readonly string[]) {
  // A bare --color means always; no other value of the parser may be left out.
  const args = argv.map((arg) => (arg === '--color' || arg === '--colour' ? '--color=always' : arg))
  return parseArgs({ args, options: flags, allowPositionals: true, strict: true })
}
