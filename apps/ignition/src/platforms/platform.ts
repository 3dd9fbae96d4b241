import type { RunCommand } from '../commands.ts'
import type { CloudIdentity } from '../object-store.ts'

/** What a platform's module works with. */
export type PlatformPorts = {
  /** Body of an answer with status 200; undefined when it is not there. Retries as any fetch does. */
  get(url: string, headers?: Record<string, string>, method?: 'GET' | 'PUT'): Promise<Buffer | undefined>
  command: RunCommand
  /** Content of a file on a labelled volume; undefined when there is no such volume or file. */
  readVolume(label: string, path: string): Promise<Buffer | undefined>
}

/** Facts about the machine by name (`HOSTNAME`, `INSTANCE_ID`, `IPV4_LOCAL`, `SSH_KEY_0`, ...). */
export type Attributes = Record<string, string>

export type FoundConfig = { bytes: Buffer; source: string }

/** Where a kind of machine has its config and its facts. */
export type Platform = {
  /** Whether anything can be read only once the network is up. */
  needsNetwork: boolean
  config(ports: PlatformPorts): Promise<FoundConfig | undefined>
  attributes(ports: PlatformPorts): Promise<Attributes>
  /** What an instance may show the cloud's object store. */
  identity?(ports: PlatformPorts): Promise<CloudIdentity>
}

/** Gets the text at each path below a base; what is not there is left out. */
export async function textsAt(
  ports: PlatformPorts,
  base: string,
  paths: Record<string, string>,
  headers?: Record<string, string>,
): Promise<Attributes> {
  const found: Attributes = {}
  for (const [name, path] of Object.entries(paths)) {
    const text = (await ports.get(`${base}${path}`, headers))?.toString('utf8').trim()
    if (text) found[name] = text
  }
  return found
}

/** Keys as `SSH_KEY_0` and so on. */
export const keyAttributes = (keys: readonly string[]): Attributes =>
  Object.fromEntries(keys.map((key, index) => [`SSH_KEY_${index}`, key.trim()]))

/** Only what is there and is text or a number. */
export function presentAttributes(values: Record<string, unknown>): Attributes {
  const present = Object.entries(values).filter(
    ([, value]) => (typeof value === 'string' && value !== '') || typeof value === 'number',
  )
  return Object.fromEntries(present.map(([name, value]) => [name, String(value)]))
}

export const parsedJson = <T>(bytes: Buffer | undefined): T | undefined =>
  bytes === undefined ? undefined : (JSON.parse(bytes.toString('utf8')) as T)
