import { addOrigin, type ConfigPath, type Finding } from './config-path.ts'
import type { Decoded } from './decode.ts'
import { grubConfigPath } from './grub.ts'
import type { Traced } from './merge-traced.ts'
import type { OpenShift } from './specs.ts'

const cipherOptions = ['--cipher', 'aes-cbc-essiv:sha256']
const fields = {
  extensions: 'extensions',
  fips: 'fips',
  kernel_arguments: 'kernelArguments',
  kernel_type: 'kernelType',
}

/** The default mode of LUKS is not among those that FIPS 140 allows. */
export function addFipsCipher(source: Decoded, { config, origins }: Traced): void {
  if (source['openshift']?.fips !== true) return
  const volumes = ((config['storage'] as Decoded | undefined)?.['luks'] ?? []) as Decoded[]
  for (const [index, luks] of volumes.entries()) {
    const options = (luks['options'] ?? []) as string[]
    if (options.some((option) => /^(--cipher(=.*)?|-c)$/.test(option))) continue
    const from: ConfigPath = ['openshift', 'fips']
    const to = ['storage', 'luks', index, 'options']
    if (options.length === 0) addOrigin(origins, from, to)
    for (const at of cipherOptions.keys()) addOrigin(origins, from, [...to, options.length + at])
    luks['options'] = [...options, ...cipherOptions]
  }
}

/** The operator cannot append to files: what the boot loader's users make becomes the file's contents. */
export function replaceGrubAppend({ config, origins }: Traced): void {
  const files = ((config['storage'] as Decoded | undefined)?.['files'] ?? []) as Decoded[]
  const index = files.findIndex(({ path }) => path === grubConfigPath)
  const file = files[index]
  if (file?.['append']?.length !== 1) return
  file['contents'] = file['append'][0]
  delete file['append']
  const from = origins.get(`storage.files.${index}.append.0`)
  if (!from) return
  for (const field of ['', 'source', 'compression']) {
    addOrigin(origins, from, ['storage', 'files', index, 'contents', ...(field === '' ? [] : [field])])
  }
}

/** What OpenShift's operator and its image refuse of an otherwise good config. */
export function checkOpenShift(config: Decoded, rules: OpenShift): Finding[] {
  const findings: Finding[] = []
  const fail = (path: ConfigPath, message: string): void => {
    findings.push({ space: 'json', severity: 'error', path, message })
  }
  for (const [index, { format }] of ((config['storage']?.filesystems ?? []) as Decoded[]).entries()) {
    const path = ['storage', 'filesystems', index, 'format']
    if (format === 'btrfs') fail(path, 'btrfs is not supported in this spec version')
    if (format === 'none' && rules.refusesNone) {
      fail(path, 'format "none" is not supported in this spec version')
    }
  }
  for (const [index, file] of ((config['storage']?.files ?? []) as Decoded[]).entries()) {
    const source = file['contents']?.source as string | undefined
    if (source !== undefined && isUrl(source) && !/^data:/i.test(source)) {
      const message = 'file contents source must be data URL in this spec version'
      fail(['storage', 'files', index, 'contents', 'source'], message)
    }
    if (!rules.specialModes && (Number(file['mode'] ?? 0) & ~0o777) !== 0) {
      const message = 'special mode bits are not supported in this spec version'
      fail(['storage', 'files', index, 'mode'], message)
    }
  }
  for (const [index, user] of ((config['passwd']?.users ?? []) as Decoded[]).entries()) {
    if (user['name'] === 'core') continue
    const message = 'users other than "core" are not supported in this spec version'
    fail(['passwd', 'users', index, 'name'], message)
  }
  return findings
}

/** Go's parser takes relative references too; only a broken scheme or escape is left to the config's own check. */
const isUrl = (text: string): boolean => !/^:|^[0-9][^/]*:|%(?![0-9a-f]{2})/i.test(text)

/** Fields of the section `openshift`, in a MachineConfig's spelling. */
export function operatorFields(source: Decoded): Decoded {
  const section = (source['openshift'] ?? {}) as Decoded
  return Object.fromEntries(
    Object.entries(fields).flatMap(([name, target]) => {
      const value = section[name]
      return value === undefined || (Array.isArray(value) && value.length === 0) ? [] : [[target, value]]
    }),
  )
}

/** A config that is not wrapped has no place for the operator's own fields. */
export function findElided(source: Decoded): Finding[] {
  const section = (source['openshift'] ?? {}) as Decoded
  return Object.keys(fields)
    .filter((name) => section[name] !== undefined)
    .map((name) => ({
      space: 'yaml',
      severity: 'warning',
      path: ['openshift', name],
      message: 'field ignored in raw mode',
    }))
}

/** The MachineConfig resource around a config. */
export function machineConfig(source: Decoded, config: Decoded): Decoded {
  const { name, labels } = (source['metadata'] ?? {}) as Decoded
  return {
    apiVersion: 'machineconfiguration.openshift.io/v1',
    kind: 'MachineConfig',
    metadata: { labels: labels ?? {}, name },
    spec: { config, ...operatorFields(source) },
  }
}
