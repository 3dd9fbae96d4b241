import { keyAttributes, type Platform, parsedJson, textsAt } from './platform.ts'

const instance = 'http://metadata.google.internal/computeMetadata/v1/instance'
const headers = { 'Metadata-Flavor': 'Google' }

/** Google Compute Engine's metadata server ("View and query VM metadata"). */
export const gcp: Platform = {
  needsNetwork: true,
  async config(ports) {
    const source = `${instance}/attributes/user-data`
    const bytes = await ports.get(source, headers)
    return bytes && { bytes, source }
  },
  async attributes(ports) {
    const nic = '/network-interfaces/0'
    const names = {
      HOSTNAME: '/hostname',
      INSTANCE_ID: '/id',
      INSTANCE_TYPE: '/machine-type',
      IPV4_LOCAL: `${nic}/ip`,
      IPV4_PUBLIC: `${nic}/access-configs/0/external-ip`,
      ZONE: '/zone',
    }
    const keys = (await ports.get(`${instance}/attributes/ssh-keys`, headers))?.toString('utf8') ?? ''
    // A line is `USER:KEY`.
    const lines = keys
      .split('\n')
      .flatMap((line) => (line.includes(':') ? [line.slice(line.indexOf(':') + 1)] : []))
    const found = await textsAt(ports, instance, names, headers)
    // Names come as `projects/N/zones/ZONE`.
    for (const name of ['ZONE', 'INSTANCE_TYPE'])
      if (found[name]) found[name] = found[name].replace(/^.*\//, '')
    return { ...found, ...keyAttributes(lines) }
  },
  async identity(ports) {
    const source = `${instance}/service-accounts/default/token`
    const gcpToken = parsedJson<{ access_token: string }>(await ports.get(source, headers))?.access_token
    return { gcpToken }
  },
}
