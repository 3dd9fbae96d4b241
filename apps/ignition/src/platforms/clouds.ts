import type { CloudName } from '../options.ts'
import { aws } from './aws.ts'
import { azure } from './azure.ts'
import { digitalocean } from './digitalocean.ts'
import { gcp } from './gcp.ts'
import { hetzner } from './hetzner.ts'
import { openstack } from './openstack.ts'
import type { Platform } from './platform.ts'
import { proxmoxve } from './proxmoxve.ts'
import { vmware } from './vmware.ts'

/** Clouds and hypervisors that have a config of their own. */
export const cloudPlatforms: Readonly<Record<CloudName, Platform>> = {
  aws,
  azure,
  digitalocean,
  gcp,
  hetzner,
  nocloud: proxmoxve,
  openstack,
  proxmoxve,
  vmware,
}

/** The module of a platform; undefined for those whose config is on the machine. */
export function cloudPlatform(name: string): Platform | undefined {
  return Object.hasOwn(cloudPlatforms, name) ? cloudPlatforms[name as CloudName] : undefined
}
