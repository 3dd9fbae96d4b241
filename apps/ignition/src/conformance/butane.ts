/**
 * Translates case data of the real Butane and compares: JSON and YAML by value, compressed contents by what is in
 * them, exit codes of a normal and a strict run, and raw errors by level, path, line and column.
 *
 *   node apps/ignition/src/conformance/butane.ts [--cases DIR] [--only REGEX]
 *
 * Prints each difference and `N passed, M failed, K skipped` at the end.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { decodeDataUrl, parseIgnition, parsePod } from '@kiln/schemas'
import { openFilesDirectory } from '@kiln/service'
import { parse } from 'yaml'
import { runButane } from '../butane/command.ts'
import { dataFile, exitCodeOf } from './case-result.ts'

const usage = `kiln conformance butane: translations of the real Butane against ours.

  --cases DIR    the case files (default: the shared cases); without a files-dir.json the shared one counts
  --only REGEX   cases whose names match

Ends with "N passed, M failed, K skipped"; exit 1 when one failed, 2 when the folder named by --cases holds none.
`

export const casesDefault = resolve(import.meta.dirname, '../../../../../shared/cases/butane')

/** One translation that the real tool has made. */
type ButaneCase = {
  group: string
  name: string
  input: string
  exitCode: number
  output?: unknown
  outputFormat?: string | null
  strictExitCode: number
  rawErrors: string
}

type FileOfCases = { mode: string; text: string } | { link: string }

export type ButaneCounts = { passed: number; failed: number; skipped: number }

/** Runs all cases of a folder; `print` gets a line for each difference. */
export async function runButaneCases(options: {
  casesDir: string
  only?: RegExp
  print: (line: string) => void
}): Promise<ButaneCounts> {
  const counts: ButaneCounts = { passed: 0, failed: 0, skipped: 0 }
  const { casesDir, print } = options
  if (!existsSync(casesDir)) {
    const isAsked = casesDir !== casesDefault
    print(`${isAsked ? '' : 'SKIP all: '}there is no ${casesDir}`)
    if (!isAsked) counts.skipped++
    return counts
  }
  const folder = await mkdtemp(join(tmpdir(), 'kiln-butane-'))
  try {
    await writeFiles(folder, dataFile('files-dir.json', { cases: casesDir, fallback: casesDefault }))
    for (const file of readdirSync(casesDir).toSorted()) {
      if (!file.endsWith('.json') || file === 'files-dir.json') continue
      for (const one of JSON.parse(readFileSync(join(casesDir, file), 'utf8')) as ButaneCase[]) {
        if (options.only && !options.only.test(one.name)) continue
        const differences = await compareCase(one, folder)
        if (differences.length === 0) counts.passed++
        else counts.failed++
        for (const difference of differences) print(`FAIL ${file} ${one.name}: ${difference}`)
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  return counts
}

async function writeFiles(folder: string, list: string): Promise<void> {
  if (!existsSync(list)) return
  const files = JSON.parse(readFileSync(list, 'utf8')) as Record<string, FileOfCases>
  for (const [path, file] of Object.entries(files)) {
    const target = join(folder, path)
    await mkdir(dirname(target), { recursive: true })
    if ('link' in file) await symlink(file.link, target)
    else {
      await writeFile(target, file.text)
      await chmod(target, Number(file.mode))
    }
  }
}

async function compareCase(one: ButaneCase, folder: string): Promise<string[]> {
  const differences: string[] = []
  const normal = await run(one.input, ['--files-dir', folder])
  const strict = await run(one.input, ['--files-dir', folder, '--strict', '--raw-errors'])
  const differs = (what: string, got: unknown, wanted: unknown): void => {
    if (!isDeepStrictEqual(got, wanted)) {
      differences.push(`${what} is ${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`)
    }
  }
  differs('the exit code', normal.code, one.exitCode)
  differs('the exit code of --strict', strict.code, one.strictExitCode)
  differs('the errors', placesOf(strict.stderr), placesOf(one.rawErrors))
  if (one.exitCode === 0 && normal.code === 0 && one.output !== undefined) {
    const yaml = one.outputFormat === 'yaml'
    const got = yaml ? parse(normal.stdout) : JSON.parse(normal.stdout)
    const wanted =
      typeof one.output === 'string' ? (yaml ? parse(one.output) : JSON.parse(one.output)) : one.output
    differs('the output', withContents(got), withContents(wanted))
  }
  return differences
}

async function run(input: string, argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = ''
  let stderr = ''
  const code = await runButane(argv, {
    read: () => input,
    write(_, text) {
      stdout += text
    },
    complain(text) {
      stderr += text
    },
    openFiles: openFilesDirectory,
    loadDocuments: async () => ({ parseIgnition, parsePod }),
    colourful: false,
  })
  return { code, stdout, stderr }
}

/** Level, path, line and column of each raw error, in no particular order. */
function placesOf(stderr: string): string[] {
  return stderr
    .split('\n')
    .flatMap((line) => /^(error|warning|info) at (\$.*?, )?(line \d+ col \d+)/.exec(line)?.[0] ?? [])
    .toSorted()
}

/** Data URLs become the bytes they hold, for two encoders of gzip may differ in theirs. */
function withContents(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withContents)
  if (typeof value !== 'object' || value === null) return value
  const { source, compression } = value as { source?: unknown; compression?: unknown }
  const children = Object.fromEntries(Object.entries(value).map(([key, child]) => [key, withContents(child)]))
  if (typeof source !== 'string' || !source.startsWith('data:') || compression !== 'gzip') return children
  const bytes = decodeDataUrl(source)
  return { ...children, source: bytes ? gunzipSync(bytes).toString('latin1') : source }
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string' },
      only: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(usage)
    process.exit(0)
  }
  const counts = await runButaneCases({
    casesDir: values.cases ? resolve(values.cases) : casesDefault,
    ...(values.only ? { only: new RegExp(values.only) } : {}),
    print: (line) => console.log(line),
  })
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  process.exitCode = exitCodeOf(counts, values.cases)
}
