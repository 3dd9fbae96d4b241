import { keyAttributes, type Platform, parsedJson, presentAttributes } from './platform.ts'

const instance = 'http://169.254.169.254/metadata/instance'
const headers = { Metadata: 'true' }
/** Label of the provisioning disk, which has the custom data of older virtual machines. */
const provisioningLabel = 'rd_rdfe_*'

type Instance = {
  compute?: {
    name?: string
    vmId?: string
    vmSize?: string
    location?: string
    zone?: string
    publicKeys?: { keyData: string }[]
  }
  network?: {
    interface?: { ipv4?: { ipAddress?: { privateIpAddress?: string; publicIpAddress?: string }[] } }[]
  }
}

/** Azure's instance metadata service; user data first, then custom data from the provisioning disk. */
export const azure: Platform = {
  needsNetwork: true,
  async config(ports) {
    const source = `${instance}/compute/userData?api-version=2021-01-01&format=text`
    const encoded = (await ports.get(source, headers))?.toString('latin1').trim()
    if (encoded) return { bytes: Buffer.from(encoded, 'base64'), source }
    const bytes = await ports.readVolume(provisioningLabel, 'CustomData.bin')
    return bytes && { bytes, source: 'CustomData.bin' }
  },
  async attributes(ports) {
    const { compute, network } =
      parsedJson<Instance>(await ports.get(`${instance}?api-version=2021-02-01`, headers)) ?? {}
    const address = network?.interface?.[0]?.ipv4?.ipAddress?.[0]
    return {
      ...presentAttributes({
        HOSTNAME: compute?.name,
        INSTANCE_ID: compute?.vmId,
        INSTANCE_TYPE: compute?.vmSize,
        REGION: compute?.location,
        ZONE: compute?.zone,
        IPV4_LOCAL: address?.privateIpAddress,
        IPV4_PUBLIC: address?.publicIpAddress,
      }),
      ...keyAttributes((compute?.publicKeys ?? []).map(({ keyData }) => keyData)),
    }
  },
}
