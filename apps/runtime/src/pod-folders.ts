import { existsSync } from 'node:fs'
import { chmod, chown, mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type PodContainer, type PodManifest, type PodVolume, readPodOptions } from '@kiln/schemas'
import { assert, Fault } from '@kiln/service'
import type { PodConnection } from './cni/pod-networks.ts'
import { writeConfigMap } from './config-maps.ts'
import {
  containerRun,
  containerState,
  hostNameFile,
  hostsFile,
  type PodPaths,
  podHostName,
  resolverFile,
  runningFile,
  terminationFile,
  volumeSource,
} from './container-plan.ts'
import type { PodRecord } from './pod-record.ts'
import { podResolver } from './services/resolver.ts'
import { findSubPath } from './sub-path.ts'

const hostsHead = '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n'

/** Writes what the pod knows of itself and of names: hosts(5), hostname(5), resolv.conf(5). */
export async function writeIdentity(
  record: PodRecord,
  paths: PodPaths,
  { addresses, gateways, nameservers }: PodConnection,
): Promise<void> {
  const { spec } = record.manifest
  const name = podHostName(record.manifest)
  const own = addresses.length > 0 ? addresses : ['127.0.1.1']
  const lines = spec.hostNetwork ? [] : own.map((address) => `${address}\t${name}\n`)
  const aliases = spec.hostAliases.map(({ ip, hostnames }) => `${ip}\t${hostnames.join('\t')}\n`)
  await writeFile(hostsFile(paths), [hostsHead, ...lines, ...aliases].join(''))
  await writeFile(hostNameFile(paths), `${name}\n`)
  await writeFile(resolverFile(paths), await podResolver({ ...spec, gateways, nameservers }))
}

/**
 * Makes the folders of a container that is about to start, and the volumes of its pod that are not there yet. Answers where the mounts
 * are that want a part of a volume, by their paths in the container.
 */
export async function prepareFolders(
  pod: PodManifest,
  container: PodContainer,
  paths: PodPaths,
  configMaps: string,
): Promise<Map<string, string>> {
  const layers = join(containerState(paths, container.name), 'layers')
  // Each attempt begins with the image as it is.
  await rm(layers, { recursive: true, force: true })
  for (const folder of [
    join(layers, 'upper'),
    join(layers, 'work'),
    join(containerRun(paths, container.name), 'root'),
  ]) {
    await mkdir(folder, { recursive: true, mode: 0o755 })
  }
  await rm(runningFile(paths, container.name), { force: true })
  if (container.terminationMessagePath !== undefined) {
    await writeFile(terminationFile(paths, container.name), '')
    await chmod(terminationFile(paths, container.name), 0o666)
  }
  for (const volume of pod.spec.volumes) await prepareVolume(pod, volume, paths, configMaps)
  const sources = new Map<string, string>()
  for (const { name, mountPath, subPath } of container.volumeMounts) {
    if (subPath === undefined) continue
    const volume = pod.spec.volumes.find((each) => each.name === name)
    assert(volume, `a volume ${name}, as the schema demands`)
    const place = { name, folder: volumeSource(volume, paths), gid: volumeGroup(pod, volume) }
    sources.set(mountPath, await findSubPath(place, subPath))
  }
  return sources
}

/** The group of what we make in a volume; the machine's own paths keep theirs. */
const volumeGroup = (pod: PodManifest, volume: PodVolume): number =>
  volume.hostPath ? 0 : (pod.spec.securityContext?.fsGroup ?? 0)

async function prepareVolume(
  pod: PodManifest,
  volume: PodVolume,
  paths: PodPaths,
  configMaps: string,
): Promise<void> {
  if (volume.hostPath) return await expectHostPath(volume.name, volume.hostPath)
  const folder = volumeSource(volume, paths)
  if (existsSync(folder)) return
  const gid = volumeGroup(pod, volume)
  await mkdir(dirname(folder), { recursive: true })
  if (volume.configMap) return await writeConfigMap(configMaps, volume.configMap, folder, gid)
  const options = readPodOptions(pod.metadata.annotations).options?.volumes[volume.name]
  await mkdir(folder)
  await chown(folder, options?.uid ?? 0, options?.gid ?? gid)
  // Whoever the containers run as, as Kubernetes does; the umask must not matter. With a group of its own all in it gets that group.
  await chmod(folder, options?.mode ?? (gid === 0 ? 0o777 : 0o2777))
}

async function expectHostPath(name: string, wanted: { path: string; type: string }): Promise<void> {
  if (wanted.type === 'DirectoryOrCreate') await mkdir(wanted.path, { recursive: true })
  const found = await stat(wanted.path).catch(() => undefined)
  const right =
    found && (wanted.type === '' || (wanted.type === 'File' ? found.isFile() : found.isDirectory()))
  if (!right)
    throw new Fault(
      'POD_VOLUME_MISSING',
      `volume ${name} needs ${wanted.type || 'something'} at ${wanted.path}`,
    )
}
