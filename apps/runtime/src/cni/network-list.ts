import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { NetworkName } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'

/** Versions of CNI whose configuration and results are understood here. */
export const cniVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0'] as const

const filesMax = 64
const fileBytesMax = 256 << 10

const Plugin = z.looseObject({
  type: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/, 'is no name of a plug-in'),
  /** What the plug-in wants to be told at run time, such as `portMappings`. */
  capabilities: z.record(z.string(), z.boolean()).optional(),
})
export type PluginConfig = z.output<typeof Plugin>

const List = z.looseObject({
  cniVersion: z.enum(cniVersions, { error: `must be one of ${cniVersions.join(', ')}` }),
  name: NetworkName.refine((name) => name !== 'none', 'is what pods without networks ask for'),
  disableCheck: z.boolean().optional(),
  plugins: z.array(Plugin).min(1).max(16),
})
/** A network: plug-ins that are run one after the other (CNI 1.0, section 1). */
export type NetworkList = z.output<typeof List>

export type NetworkProblem = { file: string; message: string }
export type ConfiguredNetworks = { networks: Map<string, NetworkList>; problems: NetworkProblem[] }

/**
 * Reads the networks of a folder: `*.conflist`, and `*.conf` and `*.json` with a single plug-in. What is wrong with a file is
 * said of that file; the others count. A name that is there twice is a problem of the later file.
 */
export async function readNetworks(folder: string): Promise<ConfiguredNetworks> {
  const networks = new Map<string, NetworkList>()
  const problems: NetworkProblem[] = []
  const entries = await readdir(folder).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return []
    throw new Fault('CNI_CONFIG_INVALID', `cannot list the networks in ${folder}`, { cause })
  })
  const files = entries.filter((name) => /\.(conflist|conf|json)$/.test(name)).sort()
  for (const name of files.slice(filesMax))
    problems.push({ file: join(folder, name), message: `is more than the ${filesMax} files that are read` })
  for (const name of files.slice(0, filesMax)) {
    const file = join(folder, name)
    const read = await readText(file)
    const parsed = 'text' in read ? parseNetwork(read.text, name.endsWith('.conflist')) : read
    if ('problem' in parsed) problems.push({ file, message: parsed.problem })
    else if (networks.has(parsed.network.name))
      problems.push({ file, message: `another file has the network ${parsed.network.name} already` })
    else networks.set(parsed.network.name, parsed.network)
  }
  return { networks, problems }
}

/** Reads one file's text. A single plug-in becomes a list of one. */
export function parseNetwork(text: string, isList: boolean): { network: NetworkList } | { problem: string } {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch (error) {
    return { problem: `is not JSON: ${(error as Error).message}`.slice(0, 300) }
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document))
    return { problem: 'is no JSON object' }
  const { cniVersion, name, ...plugin } = document as Record<string, unknown>
  if (!isList && 'plugins' in plugin) return { problem: 'has plugins, so its name must end in .conflist' }
  const result = List.safeParse(isList ? document : { cniVersion, name, plugins: [plugin] })
  if (result.success) return { network: result.data }
  const problems = result.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
  return { problem: problems.slice(0, 5).join('; ').slice(0, 500) }
}

async function readText(file: string): Promise<{ text: string } | { problem: string }> {
  try {
    if ((await stat(file)).size > fileBytesMax) return { problem: `is larger than ${fileBytesMax} bytes` }
    return { text: await readFile(file, 'utf8') }
  } catch (error) {
    return { problem: `cannot be read: ${(error as Error).message}` }
  }
}

/** Finds a network by name, or says which there are and which files are no help. */
export function findNetwork(name: string, { networks, problems }: ConfiguredNetworks): NetworkList {
  const network = networks.get(name)
  if (network) return network
  const broken = problems.map(({ file, message }) => `; ${file} ${message}`).join('')
  const known = [...networks.keys()].sort().join(', ') || 'none'
  throw new Fault('CNI_NETWORK_UNKNOWN', `there is no network ${name}, only ${known}${broken}`.slice(0, 1500))
}
