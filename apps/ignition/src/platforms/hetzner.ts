import { keyAttributes, type Platform, parsedJson, textsAt } from './platform.ts'

const service = 'http://169.254.169.254/hetzner/v1'

/** Hetzner Cloud's server metadata. */
export const hetzner: Platform = {
  needsNetwork: true,
  async config(ports) {
    const source = `${service}/userdata`
    const bytes = await ports.get(source)
    return bytes && { bytes, source }
  },
  async attributes(ports) {
    const names = {
      HOSTNAME: '/hostname',
      INSTANCE_ID: '/instance-id',
      REGION: '/region',
      ZONE: '/availability-zone',
      IPV4_PUBLIC: '/public-ipv4',
      IPV4_LOCAL: '/local-ipv4',
    }
    const keys = parsedJson<string[]>(await ports.get(`${service}/metadata/public-keys`))
    return { ...(await textsAt(ports, `${service}/metadata`, names)), ...keyAttributes(keys ?? []) }
  },
}
