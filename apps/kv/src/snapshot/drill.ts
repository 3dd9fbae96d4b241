import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdClient } from '@kiln/etcd-api'
import { crc32c, encodeKeyValue, revisionKey } from '@kiln/mvcc'
import { createLog, Fault, systemClock } from '@kiln/service'
import { startNode } from '../node.ts'
import { loadSettings } from '../settings/settings.ts'
import { readContent, type SnapshotContent } from './content.ts'
import { restoreSnapshotFile } from './restore.ts'
import { openSnapshotFile } from './snapshot-file.ts'

export type DrillResult = { revision: number; keys: number; hash: number; leases: number; seconds: number }

const startTimeoutMs = 120_000

/**
 * Proves that a snapshot can be restored: restores it into a temporary directory, starts a member on it on the loopback, compares
 * its revision, keys and hash with what the file says, and removes it again.
 */
export async function drillSnapshot(
  path: string,
  { skipHashCheck = false, folder = tmpdir() }: { skipHashCheck?: boolean; folder?: string } = {},
): Promise<DrillResult> {
  const began = performance.now()
  const file = await openSnapshotFile(path, { skipHashCheck })
  const expected = await readContent(file)
    .then(summary)
    .finally(() => file.close())
  const work = await mkdtemp(join(folder, 'kiln-kv-drill-'))
  try {
    const [client, peer] = [await freePort(), await freePort()]
    const peerUrl = `http://127.0.0.1:${peer}`
    const dataDir = join(work, 'data')
    await restoreSnapshotFile({
      path,
      dataDir,
      name: 'drill',
      initialCluster: `drill=${peerUrl}`,
      token: `drill-${client}-${peer}`,
      advertisePeerUrls: [peerUrl],
      // It was checked above.
      skipHashCheck: true,
      bumpRevision: 0,
      markCompacted: false,
    })
    const found = await measure({ dataDir, clientUrl: `http://127.0.0.1:${client}`, peerUrl, expected })
    for (const name of ['revision', 'keys', 'hash'] as const) {
      if (found[name] !== expected[name]) {
        throw new Fault(
          'STORE_DRILL_FAILED',
          `the restored member has ${name} ${found[name]}, the snapshot ${expected[name]}`,
        )
      }
    }
    return { ...expected, seconds: Math.round(performance.now() - began) / 1000 }
  } finally {
    await rm(work, { recursive: true, force: true })
  }
}

type Summary = Omit<DrillResult, 'seconds'>

/** What the file says, computed without the store. Live keys are held in memory, as the member itself does. */
async function summary(content: SnapshotContent): Promise<Summary> {
  const { revision, compactRevision } = content
  const live = new Set<string>()
  let hash = crc32c(Buffer.from('key'))
  for await (const version of content.versions()) {
    const key = Buffer.from(version.key).toString('latin1')
    if (version.version > 0) live.add(key)
    else live.delete(key)
    if (version.version > 0 || version.revision > compactRevision) {
      hash = crc32c(encodeKeyValue(version), crc32c(revisionKey(version), hash))
    }
  }
  return { revision, keys: live.size, hash, leases: content.leases.length }
}

async function measure(member: {
  dataDir: string
  clientUrl: string
  peerUrl: string
  expected: Summary
}): Promise<Pick<Summary, 'revision' | 'keys' | 'hash'>> {
  const { dataDir, clientUrl, peerUrl, expected } = member
  const { settings } = loadSettings({
    argv: [
      '--name=drill',
      `--data-dir=${dataDir}`,
      `--listen-client-urls=${clientUrl}`,
      `--advertise-client-urls=${clientUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=drill=${peerUrl}`,
    ],
    env: {},
    readFile: () => '',
  })
  const failed = Promise.withResolvers<never>()
  const node = await startNode({
    settings,
    log: createLog('kiln-kv', 'silent'),
    clock: systemClock,
    random: Math.random,
    onFatal: (fault) => failed.reject(fault),
  })
  const client = new EtcdClient({ endpoints: [clientUrl], timeoutMs: startTimeoutMs })
  try {
    const late = AbortSignal.timeout(startTimeoutMs)
    const timeout = new Promise<never>((_resolve, reject) =>
      late.addEventListener('abort', () =>
        reject(new Fault('STORE_TIMEOUT', 'the restored member does not serve')),
      ),
    )
    await Promise.race([node.published, failed.promise, timeout])
    const at = BigInt(expected.revision)
    const { count } = await client.getPrefix('', { limit: 1, keysOnly: true, revision: at })
    const { hash, revision } = await client.hashKv(at)
    // A lease may have ended since: the member may be beyond the snapshot, never before it.
    return { revision: Math.min(Number(revision), expected.revision), keys: count, hash }
  } finally {
    client.close()
    await node.stop()
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
