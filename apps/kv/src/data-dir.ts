import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { atomicWrite, Fault } from '@kiln/service'
import * as z from 'zod'
import type { Member } from './consensus/types.ts'

export const dataFormatVersion = 1

/** Who this member is: written once, when it first starts. What the flags say afterwards about that is ignored. */
export type Identity = {
  formatVersion: number
  clusterId: bigint
  memberId: bigint
  name: string
  /** It was added to a running cluster: with an empty log it waits to be told who the others are. */
  joining: boolean
  /** The first members of a cluster that was new: the log begins with them, whatever the flags say later. */
  members: Member[]
}

const file = 'member.json'

const MemberList = z.array(
  z.object({
    id: z.string().transform((digits) => BigInt(`0x${digits}`)),
    name: z.string(),
    peerUrls: z.array(z.string()),
    clientUrls: z.array(z.string()),
    learner: z.boolean(),
  }),
)

/**
 * Takes the data directory for this process, or says that another one has it. The lock is a name in the kernel, so that it
 * goes with the process however that ends.
 */
export async function lockDataDir(dataDir: string): Promise<() => void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new Fault('STORE_DATA_DIR', `cannot make the data directory ${dataDir}`, { cause })
  })
  const { dev, ino } = await stat(dataDir)
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new Fault('STORE_DATA_DIR_BUSY', `another process has the data directory ${dataDir}`, { cause }),
      ),
    )
    server.listen(`\0kiln-kv:${dev}:${ino}`, resolve)
  })
  server.unref()
  return () => void server.close()
}

/** The identity in a data directory, undefined in an empty one. */
export async function readIdentity(dataDir: string): Promise<Identity | undefined> {
  let text: string
  try {
    text = await readFile(join(dataDir, file), 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Fault('STORE_DATA_DIR', `cannot read ${join(dataDir, file)}`, { cause })
    }
    const found = await readdir(dataDir)
    if (found.includes('member')) {
      throw new Fault('STORE_DATA_DIR', `${dataDir} is the data directory of an etcd`, {
        remedy: 'start with an empty one and add this as a new member',
      })
    }
    return undefined
  }
  return parseIdentity(text, join(dataDir, file))
}

export function parseIdentity(text: string, path: string): Identity {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new Fault('STORE_DATA_DIR', `${path} is damaged`, { cause })
  }
  if (typeof value['formatVersion'] !== 'number' || value['formatVersion'] > dataFormatVersion) {
    throw new Fault('STORE_FORMAT_UNKNOWN', `${path} has format ${value['formatVersion']}`, {
      remedy: 'a newer kiln-kv wrote it: run that version',
    })
  }
  const hex = (name: string): bigint => {
    const digits = value[name]
    if (typeof digits !== 'string' || !/^[0-9a-f]{1,16}$/.test(digits)) {
      throw new Fault('STORE_DATA_DIR', `${path} has no good ${name}`)
    }
    return BigInt(`0x${digits}`)
  }
  return {
    formatVersion: value['formatVersion'],
    clusterId: hex('clusterId'),
    memberId: hex('memberId'),
    name: String(value['name'] ?? ''),
    joining: value['joining'] === true,
    members: parseMembers(value['members'], path),
  }
}

function parseMembers(value: unknown, path: string): Member[] {
  const list = MemberList.safeParse(value)
  if (!list.success) throw new Fault('STORE_DATA_DIR', `${path} has no good members`, { cause: list.error })
  return list.data
}

export async function writeIdentity(
  dataDir: string,
  identity: Omit<Identity, 'formatVersion'>,
): Promise<void> {
  const { clusterId, memberId, name, joining, members } = identity
  const document = {
    formatVersion: dataFormatVersion,
    clusterId: clusterId.toString(16),
    memberId: memberId.toString(16),
    name,
    joining,
    members: members.map((member) => ({ ...member, id: member.id.toString(16) })),
  }
  await atomicWrite(join(dataDir, file), `${JSON.stringify(document, undefined, 2)}\n`, { mode: 0o600 })
}
