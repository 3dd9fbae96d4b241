import * as z from 'zod'

/** `ClusterFirst` finds services by their short names too; with a resolver of the machine for everything the others are one. */
export const DnsPolicy = z.enum(['Default', 'ClusterFirst', 'ClusterFirstWithHostNet', 'None'])

const address = z.union([z.ipv4(), z.ipv6()], 'must be an IP address')
const domain = z
  .string()
  .max(253)
  .regex(/^(\.|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?)$/, 'must be a domain')

/** Kubernetes' `v1.PodDNSConfig`; the C library takes three servers. */
export const DnsConfig = z.strictObject({
  nameservers: z.array(address).max(3).default([]),
  searches: z.array(domain).max(32).default([]),
  options: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[a-z0-9-]{1,63}$/, 'must be the name of an option'),
        value: z
          .string()
          .regex(/^[A-Za-z0-9.-]{1,63}$/, 'must be the value of an option')
          .optional(),
      }),
    )
    .max(32)
    .default([]),
})
export type DnsConfig = z.output<typeof DnsConfig>

/** Lines of the pod's `/etc/hosts`. */
export const HostAlias = z.strictObject({ ip: address, hostnames: z.array(domain).min(1).max(64) })
