import type { IgnitionConfig } from './ignition.ts'

/** Spec versions that are read, oldest first; the last one is still open in the specification. */
export const ignitionVersions = [
  '3.0.0',
  '3.1.0',
  '3.2.0',
  '3.3.0',
  '3.4.0',
  '3.5.0',
  '3.6.0',
  '3.7.0-experimental',
] as const

/** The newest released spec; a config is translated up to it once it has been checked by its own. */
export const ignitionNewest = '3.6.0'

/** Fields by the version that has them first; the others are in 3.0 (Ignition, "configuration specifications"). */
const fieldsSince: Record<string, readonly string[]> = {
  '3.1.0': [
    'ignition.proxy',
    'ignition.config.merge.compression',
    'ignition.config.replace.compression',
    'ignition.security.tls.certificateAuthorities.compression',
    '*.httpHeaders',
    'storage.filesystems.mountOptions',
  ],
  '3.2.0': [
    'storage.luks',
    'storage.disks.partitions.resize',
    'passwd.users.shouldExist',
    'passwd.groups.shouldExist',
  ],
  '3.3.0': ['kernelArguments'],
  '3.4.0': ['storage.luks.clevis.tang.advertisement', 'storage.luks.discard', 'storage.luks.openOptions'],
  '3.5.0': ['storage.luks.cex'],
}

/** Whether a spec knows the field at a path, which has no indices. */
export function specHasField(version: string): (path: string) => boolean {
  const newer = Object.entries(fieldsSince).flatMap(([since, fields]) => (since > version ? fields : []))
  const whole = new Set(newer.filter((field) => !field.startsWith('*')))
  const ends = newer.filter((field) => field.startsWith('*')).map((field) => field.slice(1))
  return (path) => !whole.has(path) && !ends.some((end) => path.endsWith(end))
}

const specialBits = 0o7000

/** A checked config as the newest spec has it. Before 3.6 the setuid, setgid and sticky bits of a mode had no effect. */
export function translateUp(config: IgnitionConfig): IgnitionConfig {
  const { version } = config.ignition
  if (version >= ignitionNewest) return config
  const plain = <T extends { mode?: number | undefined }>(node: T): T =>
    node.mode === undefined ? node : { ...node, mode: node.mode & ~specialBits }
  const { files, directories } = config.storage ?? {}
  return {
    ...config,
    ignition: { ...config.ignition, version: ignitionNewest },
    ...(config.storage
      ? {
          storage: {
            ...config.storage,
            ...(files ? { files: files.map(plain) } : {}),
            ...(directories ? { directories: directories.map(plain) } : {}),
          },
        }
      : {}),
  }
}
