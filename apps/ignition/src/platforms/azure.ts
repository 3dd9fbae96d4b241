import { Fault } from '@kiln/service'
import { keyAttributes, type Platform, parsedJson, presentAttributes } from './platform.ts'

const service = 'http://169.254.169.254/metadata'
const instance = `${service}/instance`
/** A token for the storage service ("How to use managed identities on a virtual machine to acquire an access token"). */
const tokenUrl = `${service}/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F`
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
  async identity(ports) {
    try {
      const answer = parsedJson<{ access_token?: string }>(await ports.get(tokenUrl, headers))
      return { azureToken: answer?.access_token }
    } catch (error) {
      // A machine without a managed identity is told so with a 400.
      if (error instanceof Fault && error.code === 'RESOURCE_REFUSED') return {}
      throw error
    }
  },
}
