import {
  keyAttributes,
  type Platform,
  type PlatformPorts,
  parsedJson,
  presentAttributes,
  textsAt,
} from './platform.ts'

const service = 'http://169.254.169.254'
const driveLabels = ['config-2', 'CONFIG-2']

/** A file below `openstack/latest`: from the config drive where there is one, else from the metadata service. */
async function latest(
  ports: PlatformPorts,
  name: string,
): Promise<{ bytes: Buffer; source: string } | undefined> {
  const path = `openstack/latest/${name}`
  for (const label of driveLabels) {
    const bytes = await ports.readVolume(label, path)
    if (bytes) return { bytes, source: `${label}:${path}` }
  }
  const source = `${service}/${path}`
  const bytes = await ports.get(source)
  return bytes && { bytes, source }
}

type MetaData = {
  uuid?: string
  hostname?: string
  availability_zone?: string
  public_keys?: Record<string, string>
}

/** OpenStack's config drive and metadata service (Nova, "Metadata"). */
export const openstack: Platform = {
  needsNetwork: true,
  config: (ports) => latest(ports, 'user_data'),
  async attributes(ports) {
    const found = parsedJson<MetaData>((await latest(ports, 'meta_data.json'))?.bytes)
    const names = { IPV4_LOCAL: '/local-ipv4', IPV4_PUBLIC: '/public-ipv4', INSTANCE_TYPE: '/instance-type' }
    return {
      ...presentAttributes({
        HOSTNAME: found?.hostname,
        INSTANCE_ID: found?.uuid,
        ZONE: found?.availability_zone,
      }),
      ...(await textsAt(ports, `${service}/latest/meta-data`, names)),
      ...keyAttributes(Object.values(found?.public_keys ?? {})),
    }
  },
}
