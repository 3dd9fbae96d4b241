import { readFile } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import { isLoopback } from './authorization.ts'

const Registries = z.strictObject({
  /** Tried before the registry itself, in order. */
  mirrors: z.record(z.string(), z.array(z.url({ protocol: /^https?$/ })).max(16)).default({}),
  /** Reached over plain HTTP. */
  insecure: z.array(z.string()).default([]),
  /** PEM files with the certificates to trust, instead of the system's. */
  certificates: z.record(z.string(), z.string()).default({}),
})
/** How the registries are reached, by the host in an image's name. */
export type Registries = z.output<typeof Registries>

export const noRegistries: Registries = Registries.parse({})

/** Where a registry answers, with what to trust there. `isMirror` never gets the registry's credentials. */
export type Endpoint = { url: string; ca: string | undefined; isMirror: boolean }

const hubUrl = 'https://registry-1.docker.io'

/** Reads the file of registries; one that is not there changes nothing. */
export async function readRegistries(path: string): Promise<Registries> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}'
    throw new Fault('REGISTRIES_FILE', `cannot read ${path}`, { cause: error })
  })
  try {
    return Registries.parse(JSON.parse(text))
  } catch (cause) {
    throw new Fault('REGISTRIES_FILE', `${path} is not as it should be`, { cause })
  }
}

/** The mirrors of a registry, then itself. */
export async function endpointsOf(registry: string, registries: Registries): Promise<Endpoint[]> {
  const mirrors = registries.mirrors[registry] ?? []
  const own = registry === 'docker.io' ? hubUrl : `${schemeOf(registry, registries)}://${registry}`
  return await Promise.all(
    [...mirrors, own].map(async (url, at) => ({
      url: url.replace(/\/$/, ''),
      ca: await certificateOf(new URL(url).host, registries),
      isMirror: at < mirrors.length,
    })),
  )
}

/** What is on this machine needs no TLS. */
function schemeOf(registry: string, { insecure, certificates }: Registries): 'http' | 'https' {
  if (insecure.includes(registry)) return 'http'
  const { hostname } = new URL(`http://${registry}`)
  return isLoopback(hostname) && certificates[registry] === undefined ? 'http' : 'https'
}

async function certificateOf(host: string, { certificates }: Registries): Promise<string | undefined> {
  const path = certificates[host]
  if (path === undefined) return undefined
  return await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new Fault('REGISTRIES_FILE', `cannot read the certificates of ${host} in ${path}`, { cause })
  })
}
