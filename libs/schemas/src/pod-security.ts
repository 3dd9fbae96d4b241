import * as z from 'zod'

/** A user or group; the highest number means none to the kernel. */
export const unixId = z.number().int().min(0).max(0xfffffffe)

/** Capability without `CAP_`, upper case, or ALL. */
const CapabilityName = z.string().regex(/^[A-Z][A-Z_]*$/, 'must be a capability such as NET_BIND_SERVICE')

/** Kubernetes' `v1.SeccompProfile`. */
export const SeccompProfile = z
  .strictObject({
    type: z.enum(['RuntimeDefault', 'Unconfined', 'Localhost']),
    /** A file below the machine's folder of profiles. */
    localhostProfile: z
      .string()
      .max(255)
      .regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*(\/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$/, 'must be a relative path')
      .optional(),
  })
  .refine((profile) => (profile.type === 'Localhost') === (profile.localhostProfile !== undefined), {
    message: 'needs localhostProfile with type Localhost, and only then',
    path: ['localhostProfile'],
  })
export type SeccompProfile = z.output<typeof SeccompProfile>

/** A container's `securityContext`. */
export const ContainerSecurity = z.strictObject({
  runAsUser: unixId.optional(),
  runAsGroup: unixId.optional(),
  runAsNonRoot: z.boolean().optional(),
  readOnlyRootFilesystem: z.boolean().default(false),
  allowPrivilegeEscalation: z.boolean().default(true),
  privileged: z.literal(false, 'must be false: privileged containers are not supported').optional(),
  capabilities: z
    .strictObject({ add: z.array(CapabilityName).default([]), drop: z.array(CapabilityName).default([]) })
    .default({ add: [], drop: [] }),
  seccompProfile: SeccompProfile.optional(),
})

/** Kernel parameters of a namespace of the pod's own, which nobody outside of it notices: those that Kubernetes calls safe. */
export const safeSysctls = {
  network: [
    'net.ipv4.ip_local_port_range',
    'net.ipv4.ip_local_reserved_ports',
    'net.ipv4.ip_unprivileged_port_start',
    'net.ipv4.ping_group_range',
    'net.ipv4.tcp_fin_timeout',
    'net.ipv4.tcp_keepalive_intvl',
    'net.ipv4.tcp_keepalive_probes',
    'net.ipv4.tcp_keepalive_time',
    'net.ipv4.tcp_rmem',
    'net.ipv4.tcp_syncookies',
    'net.ipv4.tcp_wmem',
  ],
  ipc: ['kernel.shm_rmid_forced'],
} as const
const sysctlNames: readonly string[] = [...safeSysctls.network, ...safeSysctls.ipc]

const Sysctl = z.strictObject({
  name: z
    .string()
    .transform((name) => name.replaceAll('/', '.'))
    .refine((name) => sysctlNames.includes(name), {
      error: ({ input }) =>
        `is no kernel parameter that a pod may set: ${String(input).slice(0, 100)} is of the whole machine, or not known to be safe`,
    }),
  value: z
    .string()
    .max(1024)
    .regex(/^[\x20-\x7e\t]+$/, 'must be one line of text'),
})

/** A pod's `securityContext`. */
export const PodSecurity = z.strictObject({
  runAsUser: unixId.optional(),
  runAsGroup: unixId.optional(),
  runAsNonRoot: z.boolean().optional(),
  supplementalGroups: z.array(unixId).max(32).default([]),
  /** Group of the pod's own volumes, which its containers belong to. */
  fsGroup: unixId.optional(),
  /** Volumes get their group when they are made and hand it down, so both come to the same. */
  fsGroupChangePolicy: z.enum(['Always', 'OnRootMismatch']).optional(),
  seccompProfile: SeccompProfile.optional(),
  sysctls: z.array(Sysctl).max(32).default([]),
})
