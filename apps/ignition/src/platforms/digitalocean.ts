import { keyAttributes, type Platform, parsedJson, presentAttributes } from './platform.ts'

const service = 'http://169.254.169.254/metadata/v1'

type Address = { ipv4?: { ip_address?: string } }
type Droplet = {
  droplet_id?: number
  hostname?: string
  region?: string
  public_keys?: string[]
  interfaces?: { public?: Address[]; private?: Address[] }
}

/** DigitalOcean's droplet metadata API. */
export const digitalocean: Platform = {
  needsNetwork: true,
  async config(ports) {
    const source = `${service}/user-data`
    const bytes = await ports.get(source)
    return bytes && { bytes, source }
  },
  async attributes(ports) {
    const droplet = parsedJson<Droplet>(await ports.get(`${service}.json`))
    return {
      ...presentAttributes({
        HOSTNAME: droplet?.hostname,
        INSTANCE_ID: droplet?.droplet_id,
        REGION: droplet?.region,
        IPV4_LOCAL: droplet?.interfaces?.private?.[0]?.ipv4?.ip_address,
        IPV4_PUBLIC: droplet?.interfaces?.public?.[0]?.ipv4?.ip_address,
      }),
      ...keyAttributes(droplet?.public_keys ?? []),
    }
  },
}
