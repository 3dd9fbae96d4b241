import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { parse as parseToml } from 'smol-toml'
import type { z } from 'zod'
import { Fault } from './fault.ts'

export type SettingsSource = {
  /** `kv` reads `/usr/lib/kiln/kv.toml`, `/etc/kiln/kv.toml` and `/etc/kiln/kv.toml.d/*.toml`. */
  app: string
  /** Environment prefix, `KILN_KV`. */
  prefix: string
  argv: string[]
  env: Record<string, string | undefined>
  /** Where the files are looked for; tests give a folder. */
  root?: string
}

/**
 * Settings of a daemon: vendor file, `/etc` file, drop-ins, environment, flags, each overriding the one before.
 * Names are `dataDir` in files, `KILN_KV_DATA_DIR` in the environment and `--data-dir` as flag. Unknown names in
 * files and flags are errors; all problems are reported at once in one `SETTINGS_INVALID`.
 */
export function loadSettings<S extends z.ZodObject>(schema: S, source: SettingsSource): z.output<S> {
  const problems: string[] = []
  const names = Object.keys(schema.shape)
  const merged: Record<string, unknown> = {}
  for (const file of settingsFiles(source)) {
    try {
      const values = parseToml(readFileSync(file, 'utf8'))
      for (const name of Object.keys(values)) {
        if (names.includes(name)) merged[name] = values[name]
        else problems.push(`${file}: unknown setting ${name}`)
      }
    } catch (error) {
      problems.push(`${file}: ${(error as Error).message.split('\n')[0]}`)
    }
  }
  for (const name of names) {
    const value = source.env[`${source.prefix}_${snake(name).toUpperCase()}`]
    if (value !== undefined) merged[name] = value
  }
  Object.assign(merged, readFlags(names, source.argv, problems))
  const result = schema.strict().safeParse(merged)
  if (!result.success) {
    for (const issue of result.error.issues)
      problems.push(`${issue.path.join('.') || 'settings'}: ${issue.message}`)
  }
  if (problems.length > 0 || !result.success) {
    throw new Fault('SETTINGS_INVALID', `settings of ${source.app} are invalid: ${problems.join('; ')}`)
  }
  return result.data as z.output<S>
}

function settingsFiles(source: SettingsSource): string[] {
  const root = source.root ?? '/'
  const dropIns = join(root, `etc/kiln/${source.app}.toml.d`)
  return [
    join(root, `usr/lib/kiln/${source.app}.toml`),
    join(root, `etc/kiln/${source.app}.toml`),
    ...(existsSync(dropIns)
      ? readdirSync(dropIns)
          .filter((name) => name.endsWith('.toml'))
          .sort()
          .map((name) => join(dropIns, name))
      : []),
  ].filter((path) => existsSync(path))
}

function readFlags(names: string[], argv: string[], problems: string[]): Record<string, string> {
  const byFlag = new Map(names.map((name) => [snake(name).replaceAll('_', '-'), name]))
  const flags: Record<string, string> = {}
  try {
    const { values } = parseArgs({
      args: argv,
      options: Object.fromEntries([...byFlag.keys()].map((flag) => [flag, { type: 'string' as const }])),
      strict: true,
    })
    for (const [flag, value] of Object.entries(values)) {
      const name = byFlag.get(flag)
      if (name && typeof value === 'string') flags[name] = value
    }
  } catch (error) {
    problems.push((error as Error).message)
  }
  return flags
}

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
