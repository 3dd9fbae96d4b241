import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { Fetched } from './fetch-stage.ts'
import type { Options } from './options.ts'

type StateFile = { formatVersion: 1; userConfigProvided: boolean; configHash: string; mounts: string[] }

/** Keeps the rendered config (it may hold secrets: 0600) and what later stages must know. */
export function writeState(fetched: Fetched, mounts: string[], options: Options): void {
  const { config, userConfigProvided, configHash } = fetched
  const state: StateFile = { formatVersion: 1, userConfigProvided, configHash, mounts }
  writeCache(config, options)
  put(options.stateFile, state)
}

export function writeCache(config: IgnitionConfig, options: Options): void {
  put(options.configCache, config)
}

function put(path: string, value: object): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, JSON.stringify(value), { mode: 0o600 })
  chmodSync(path, 0o600)
}

/** What the fetch stage left; without it no other stage can run. */
export function readState(options: Options): { fetched: Fetched; mounts: string[] } {
  try {
    const config = JSON.parse(readFileSync(options.configCache, 'utf8')) as IgnitionConfig
    const { mounts, ...rest } = JSON.parse(readFileSync(options.stateFile, 'utf8')) as StateFile
    return { fetched: { config, ...rest }, mounts }
  } catch (cause) {
    throw new Fault('CONFIG_NOT_FETCHED', `there is no config in ${options.configCache}`, {
      cause,
      remedy: 'run the fetch stage first',
    })
  }
}

export function clearState(options: Options): void {
  rmSync(options.configCache, { force: true })
  rmSync(options.stateFile, { force: true })
}

/** Whether a later stage will fetch something over the network. */
export function needsNetwork(config: IgnitionConfig): boolean {
  return (config.storage?.files ?? []).some((file) =>
    [file.contents, ...(file.append ?? [])].some((resource) => /^https?:/i.test(resource?.source ?? '')),
  )
}
