import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { Fetched } from './fetch-stage.ts'
import type { LuksVolume } from './luks.ts'
import type { Mounted } from './mount-stage.ts'
import type { Options } from './options.ts'

type StateFile = {
  formatVersion: 1
  userConfigProvided: boolean
  configHash: string
  mounts: string[]
  /** Directories the mount stage made; absent in files of an earlier version. */
  made?: string[]
  volumes?: LuksVolume[]
}

/** What later stages must know of earlier ones. */
export type Progress = { mounted: Mounted; volumes: LuksVolume[] }

export const noProgress: Progress = { mounted: { points: [], made: [] }, volumes: [] }

/** Keeps the rendered config (it may hold secrets: 0600) and what later stages must know. */
export function writeState(fetched: Fetched, { mounted, volumes }: Progress, options: Options): void {
  const { config, userConfigProvided, configHash } = fetched
  const { points, made } = mounted
  const state: StateFile = { formatVersion: 1, userConfigProvided, configHash, mounts: points, made, volumes }
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

/** A state file that is there must be one, whatever stage is next. */
export function checkState({ stateFile }: Options): void {
  let text: string
  try {
    text = readFileSync(stateFile, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return
    throw new Fault('STATE_INVALID', `cannot read ${stateFile}`, { cause })
  }
  try {
    JSON.parse(text)
  } catch (cause) {
    throw new Fault('STATE_INVALID', `${stateFile} holds no state of an earlier stage`, {
      cause,
      remedy: 'delete it and begin with the fetch stage',
    })
  }
}

/** What the fetch stage left; without it no other stage can run. */
export function readState(options: Options): { fetched: Fetched } & Progress {
  try {
    const config = JSON.parse(readFileSync(options.configCache, 'utf8')) as IgnitionConfig
    const state = JSON.parse(readFileSync(options.stateFile, 'utf8')) as StateFile
    const { mounts, made = [], volumes = [], userConfigProvided, configHash } = state
    return { fetched: { config, userConfigProvided, configHash }, mounted: { points: mounts, made }, volumes }
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
