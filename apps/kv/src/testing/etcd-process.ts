import { type ChildProcess, spawn } from 'node:child_process'
import { EtcdClient } from '@kiln/etcd-api'
import { fetchEtcd } from './etcdctl.ts'
import { freePorts } from './member-process.ts'

export type EtcdProcess = { endpoint: string; client: EtcdClient; stop(): Promise<void> }

const startTimeoutMs = 60_000

/** A real etcd of one member on the loopback, serving before this resolves. */
export async function startEtcd(dataDir: string, flags: string[] = []): Promise<EtcdProcess> {
  const { etcd } = await fetchEtcd()
  const [client, peer] = await freePorts(2)
  const endpoint = `http://127.0.0.1:${client}`
  const peerUrl = `http://127.0.0.1:${peer}`
  let output = ''
  const child: ChildProcess = spawn(
    etcd,
    [
      `--data-dir=${dataDir}`,
      `--listen-client-urls=${endpoint}`,
      `--advertise-client-urls=${endpoint}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      ...flags,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  )
  child.stderr!.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-32 * 1024)
  })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const store = new EtcdClient({ endpoints: [endpoint], timeoutMs: 20_000 })
  const stop = async (): Promise<void> => {
    store.close()
    child.kill('SIGTERM')
    await exited
  }
  const deadline = Date.now() + startTimeoutMs
  for (;;) {
    const isUp = await store.getPrefix('', { limit: 1 }).then(
      () => true,
      () => false,
    )
    if (isUp) return { endpoint, client: store, stop }
    if (child.exitCode !== null || Date.now() > deadline) {
      await stop()
      throw new Error(`etcd did not start: ${output}`)
    }
  }
}
