import { execFile } from 'node:child_process'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const fetchScript = resolve(import.meta.dirname, '../../../../infra/trixie/fetch.ts')

/** Folder of a package of Debian trixie, unpacked into the cache when it is not there yet. */
export async function fetchPackage(name: string): Promise<string> {
  const { stdout } = await run(process.execPath, [fetchScript, name])
  return stdout.trim()
}

const fetchPrograms = async (name: string): Promise<string> => join(await fetchPackage(name), 'usr/bin')

/** Path of etcdctl 3.5 from Debian trixie, fetched into the cache when it is not there yet. */
export async function fetchEtcdctl(): Promise<string> {
  return join(await fetchPrograms('etcd-client'), 'etcdctl')
}

/** Paths of etcd 3.5 and etcdutl from Debian trixie, likewise. */
export async function fetchEtcd(): Promise<{ etcd: string; etcdutl: string }> {
  const folder = await fetchPrograms('etcd-server')
  return { etcd: join(folder, 'etcd'), etcdutl: join(folder, 'etcdutl') }
}
