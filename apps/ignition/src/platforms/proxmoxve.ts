import { type Attributes, type Platform, presentAttributes } from './platform.ts'

/** The volume of cloud-init's NoCloud source, which Proxmox VE attaches. */
const label = 'cidata'
const namesOf: Record<string, string> = { 'instance-id': 'INSTANCE_ID', 'local-hostname': 'HOSTNAME' }

/** Proxmox VE and other hypervisors with a NoCloud volume; user data for cloud-init itself is none for us. */
export const proxmoxve: Platform = {
  needsNetwork: false,
  async config(ports) {
    const bytes = await ports.readVolume(label, 'user-data')
    if (!bytes || bytes.subarray(0, 13).toString() === '#cloud-config') return undefined
    return { bytes, source: `${label}:user-data` }
  },
  async attributes(ports): Promise<Attributes> {
    const text = (await ports.readVolume(label, 'meta-data'))?.toString('utf8') ?? ''
    const found: Record<string, string> = {}
    for (const [, name, value] of text.matchAll(/^([\w-]+):\s*["']?(.*?)["']?\s*$/gm)) {
      const known = namesOf[name!]
      if (known) found[known] = value!
    }
    return presentAttributes(found)
  },
}
