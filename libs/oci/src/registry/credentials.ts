import { readFile } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import * as z from 'zod'

/** What a registry wants to see: a name with a password, or a token that buys others. */
export type Credentials =
  | { kind: 'password'; username: string; password: string }
  | { kind: 'identity'; token: string }
  | { kind: 'bearer'; token: string }

const Entry = z.looseObject({
  auth: z.string().optional(),
  username: z.string().optional(),
  password: z.string().optional(),
  identitytoken: z.string().optional(),
  registrytoken: z.string().optional(),
})

/** `auths` of Docker's config.json and of containers-auth.json(5). */
const AuthFile = z.looseObject({
  auths: z.record(z.string(), Entry).default({}),
  credHelpers: z.record(z.string(), z.string()).default({}),
  credsStore: z.string().optional(),
})
export type AuthFile = z.output<typeof AuthFile>

/** Docker Hub stands in old files under its first address. */
const oldHubName = 'https://index.docker.io/v1/'

/** Reads an auth file; one that is not there has nothing. */
export async function readAuthFile(path: string): Promise<AuthFile> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}'
    throw new Fault('REGISTRY_AUTH_FILE', `cannot read ${path}`, { cause: error })
  })
  try {
    return AuthFile.parse(JSON.parse(text))
  } catch {
    // Not the cause: it may quote the file.
    throw new Fault('REGISTRY_AUTH_FILE', `${path} is no auth file`, {
      remedy: 'make it with docker login, podman login --authfile or skopeo login --authfile',
    })
  }
}

/** The entry of the longest matching name: `host/name/space`, then shorter ones, then `host`. */
export function credentialsFor(
  file: AuthFile,
  { registry, repository }: { registry: string; repository: string },
): Credentials | undefined {
  const parts = repository.split('/')
  const names = parts.map((_part, at) => [registry, ...parts.slice(0, parts.length - at)].join('/'))
  const candidates = [
    ...names,
    registry,
    `https://${registry}`,
    ...(registry === 'docker.io' ? [oldHubName] : []),
  ]
  const name = candidates.find((each) => Object.hasOwn(file.auths, each))
  const credentials = name === undefined ? undefined : readEntry(file.auths[name]!, name)
  if (credentials) return credentials
  const helper = file.credHelpers[registry] ?? file.credsStore
  if (helper === undefined) return undefined
  throw new Fault('REGISTRY_AUTH_FILE', `the credentials of ${registry} are with the helper ${helper}`, {
    remedy: 'helpers are not run: put the credentials into the file itself',
  })
}

function readEntry(entry: z.output<typeof Entry>, name: string): Credentials | undefined {
  if (entry.identitytoken) return { kind: 'identity', token: entry.identitytoken }
  if (entry.registrytoken) return { kind: 'bearer', token: entry.registrytoken }
  if (entry.username !== undefined && entry.password !== undefined)
    return { kind: 'password', username: entry.username, password: entry.password }
  if (!entry.auth) return undefined
  const [, username, password] =
    /^([^:]*):(.*)$/s.exec(Buffer.from(entry.auth, 'base64').toString('utf8')) ?? []
  if (username === undefined || password === undefined)
    throw new Fault('REGISTRY_AUTH_FILE', `the entry of ${name} in the auth file is damaged`)
  return { kind: 'password', username, password }
}
