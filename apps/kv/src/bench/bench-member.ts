import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog, systemClock } from '@kiln/service'
import { type RunningNode, startNode } from '../node.ts'
import { loadSettings } from '../settings/settings.ts'
import { freePorts } from '../testing/member-process.ts'

/** A member in this process, with its log on disk, so that its loop can be measured. */
export type BenchMember = {
  readonly node: RunningNode
  url: string
  restart(): Promise<void>
  close(): Promise<void>
}

export async function startBenchMember(
  flags: readonly string[] = [],
  scheme: 'http' | 'https' = 'http',
): Promise<BenchMember> {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-bench-'))
  const [client, peer] = await freePorts(2)
  const url = `${scheme}://127.0.0.1:${client}`
  const { settings } = loadSettings({
    argv: [
      `--data-dir=${folder}`,
      `--listen-client-urls=${url}`,
      `--advertise-client-urls=${url}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-cluster=default=http://127.0.0.1:${peer}`,
      '--quota-backend-bytes=-1',
      ...flags,
    ],
    env: {},
    readFile: () => '',
  })
  const start = async (): Promise<RunningNode> => {
    const node = await startNode({
      settings,
      log: createLog('bench', 'error'),
      clock: systemClock,
      random: Math.random,
      onFatal: (fault) => {
        throw fault
      },
    })
    await node.published
    return node
  }
  let node = await start()
  return {
    get node() {
      return node
    },
    url,
    restart: async () => {
      await node.stop()
      node = await start()
    },
    close: async () => {
      await node.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
