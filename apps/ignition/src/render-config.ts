import {
  checkMergedIgnition,
  describeIgnitionProblem,
  encodeDataUrl,
  type IgnitionConfig,
  type IgnitionProblem,
  type IgnitionResource,
  mergeIgnition,
  parseIgnition,
} from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { certificatesOf } from './authorities.ts'
import { ConfigInvalid } from './config-invalid.ts'
import {
  configHeaders,
  type Fetcher,
  type FetchSettings,
  fetchResource,
  settingsOf,
  shown,
} from './fetch-resource.ts'

export type Rendered = { config: IgnitionConfig; warnings: string[] }

/** Configs that point to configs deeper than this are taken for a loop. */
const depthMax = 16

export const emptyConfig: IgnitionConfig = { ignition: { version: '3.6.0' } }

/**
 * Renders a config text: `replace` is followed, every `merge` child is rendered depth-first and merged, the result is
 * checked again, because two good configs may make a bad one (Ignition operator notes, "config merging").
 */
export async function renderConfig(
  text: string,
  source: string,
  fetcher: Fetcher,
  settings: FetchSettings,
): Promise<Rendered> {
  const warnings: string[] = []
  const config = await render({ text, source, fetcher, settings, warnings, depth: 0 })
  delete config.ignition.config
  const problems = checkMergedIgnition(config)
  refuseErrors(problems, 'the merged config')
  return { config, warnings: [...new Set(warnings)] }
}

type Rendering = {
  text: string
  source: string
  fetcher: Fetcher
  settings: FetchSettings
  warnings: string[]
  depth: number
}

async function render(rendering: Rendering): Promise<IgnitionConfig> {
  const { text, source, fetcher, warnings, depth } = rendering
  if (depth > depthMax) {
    throw new Fault(
      'CONFIG_LOOP',
      `configs point to each other more than ${depthMax} deep, at ${shown(source)}`,
    )
  }
  const { config, problems } = parseIgnition(text)
  await fetcher.configRead?.({ source: shown(source), referenced: depth > 0 })
  for (const problem of problems) {
    if (problem.severity === 'warning') warnings.push(`${shown(source)}: ${describeIgnitionProblem(problem)}`)
  }
  refuseErrors(problems, shown(source))
  if (!config) throw new Fault('CONFIG_INVALID', `${shown(source)} is not a config`)
  const settings = await withAuthorities(config, fetcher, settingsOf(config, rendering.settings))
  const child = async (resource: IgnitionResource): Promise<IgnitionConfig> => {
    const bytes = await fetchResource(resource, fetcher, settings, configHeaders)
    return render({
      ...rendering,
      text: bytes.toString('utf8'),
      source: resource.source!,
      settings,
      depth: depth + 1,
    })
  }
  const { replace, merge } = config.ignition.config ?? {}
  if (replace?.source) return child(replace)
  let merged = config
  for (const resource of merge ?? []) merged = mergeIgnition(merged, await child(resource))
  return merged
}

/** A config merged over the ones before it, checked again. */
export function mergeRendered(before: IgnitionConfig, config: IgnitionConfig): IgnitionConfig {
  const merged = mergeIgnition(before, config)
  refuseErrors(checkMergedIgnition(merged), 'the merged config')
  return merged
}

/** Certificate authorities become data URLs, so that no later stage fetches them again. */
async function withAuthorities(
  config: IgnitionConfig,
  fetcher: Fetcher,
  settings: FetchSettings,
): Promise<FetchSettings> {
  const resources = config.ignition.security?.tls?.certificateAuthorities ?? []
  const authorities = [...settings.authorities]
  for (const resource of resources) {
    const bytes = await fetchResource(resource, fetcher, settings)
    authorities.push(...certificatesOf(bytes.toString('utf8'), shown(resource.source ?? '')))
    resource.source = encodeDataUrl(bytes)
    delete resource.compression
    delete resource.httpHeaders
  }
  return { ...settings, authorities }
}

/** Settings of the files stage: those of the rendered config. */
export async function settingsOfRendered(
  config: IgnitionConfig,
  fetcher: Fetcher,
  before: FetchSettings,
): Promise<FetchSettings> {
  return withAuthorities(config, fetcher, settingsOf(config, before))
}

function refuseErrors(problems: IgnitionProblem[], source: string): void {
  const errors = problems.filter(({ severity }) => severity === 'error')
  if (errors.length > 0) throw new ConfigInvalid(source, errors)
}
