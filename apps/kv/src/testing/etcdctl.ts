import { execFile } from 'node:child_process'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const fetchScript = resolve(import.meta.dirname, '../../../../infra/trixie/fetch.ts')

/** Path of etcdctl 3.5 from Debian trixie, fetched into the cache when it is not there yet. */
export async function fetchEtcdctl(): Promise<string> {
  const { stdout } = await run(process.execPath, [fetchScript, 'etcd-client'])
  return join(stdout.trim(), 'usr/bin/etcdctl')
}
