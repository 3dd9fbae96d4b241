import { existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { operatorPort } from '@kiln/runtime-api'
import { MachineFacts } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'

const path = z.string().startsWith('/')
const flag = z
  .union([z.boolean(), z.enum(['true', 'false'])])
  .transform((value) => value === true || value === 'true')

const resolvedStubs = ['127.0.0.53', '127.0.0.54']

export const Settings = z.object({
  podsDir: path.default('/etc/kiln/pods.d'),
  stateDir: path.default('/var/lib/kiln/runtime'),
  runDir: path.default('/run/kiln/runtime'),
  socket: path.default('/run/kiln/runtime.sock'),
  /** Where programs reach it by gRPC: libs/runtime-api/proto/runtime.proto. */
  grpcSocket: path.default('/run/kiln/runtime-grpc.sock'),
  /** Where the cluster's operator reaches it by gRPC and TLS, once the machine has enrolled; 0 for nowhere. */
  grpcPort: z.coerce.number().int().min(0).max(65535).default(operatorPort),
  initPath: path.default('/usr/lib/kiln/kiln-init'),
  machineFile: path.default('/etc/kiln/machine.json'),
  pkiDir: path.default('/etc/kiln/pki'),
  cgroupRoot: path.default('/sys/fs/cgroup'),
  /** First two octets of the pods' network; the third is the last of the machine's address. */
  podNetwork: z
    .string()
    .regex(/^\d{1,3}\.\d{1,3}$/, 'must be the first two octets, such as 10.88')
    .default('10.88'),
  /** Networks that pods may ask for, as CNI has them. */
  cniConfigDir: path.default('/etc/kiln/cni/net.d'),
  /** Folders of CNI plug-ins, with colons between. */
  cniPath: path.default('/usr/lib/cni:/opt/cni/bin'),
  /** First two octets of the network `bridge`, which comes with the program. */
  bridgeNetwork: z
    .string()
    .regex(/^\d{1,3}\.\d{1,3}$/, 'must be the first two octets, such as 10.89')
    .default('10.89'),
  /** What the network between machines gave this one, for CNI plug-ins: flannel's subnet.env. */
  subnetFile: path.default('/run/kiln/subnet.env'),
  /** Processes of a container that names no limit. */
  podPidsDefault: z.coerce.number().int().min(1).default(4096),
  /** Bytes of one log file on machines without journald; one older file is kept. */
  logFileBytes: z.coerce
    .number()
    .int()
    .min(4096)
    .default(10 << 20),
  /** The first delay before a container that failed again is started again; it doubles up to five minutes. */
  backOffFirstMs: z.coerce.number().int().min(10).max(300_000).default(10_000),
  /** Bytes of one file of events; one older file is kept. */
  eventFileBytes: z.coerce
    .number()
    .int()
    .min(4096)
    .default(1 << 20),
  imageBytesMax: z.coerce
    .number()
    .int()
    .min(1)
    .default(4 * 2 ** 30),
  /** How registries are reached: mirrors, hosts without TLS, certificates to trust. */
  registriesFile: path.default('/etc/kiln/registries.json'),
  /** Credentials of registries, as docker login and podman login write them. */
  registryAuthFile: path.default('/etc/kiln/registry-auth.json'),
  /** Which images may be used, and whose signatures they need; `kiln-runtime image trust` writes it. */
  imagePolicyFile: path.default('/etc/kiln/image-policy.json'),
  /** Config maps of pods: a folder each, with a file for each key. */
  configMapsDir: path.default('/etc/kiln/config-maps'),
  /** Profiles of system calls that pods name with type Localhost. */
  seccompDir: path.default('/etc/kiln/seccomp'),
  leaseSeconds: z.coerce.number().int().min(5).default(30),
  /** How long a machine that died stays in the services of others: this, and what the store takes to notice. */
  serviceLeaseSeconds: z.coerce.number().int().min(5).max(300).default(10),
  /** Where names below svc.kiln are answered: an address of the loopback. */
  serviceDnsAddress: z
    .union([z.ipv4(), z.ipv6()])
    .refine(
      (address) => address.startsWith('127.') || address === '::1',
      'must be an address of the loopback',
    )
    .refine((address) => !resolvedStubs.includes(address), 'belongs to systemd-resolved')
    .default('127.0.0.88'),
  serviceDnsPort: z.coerce.number().int().min(1).max(65535).default(53),
  /** Drop-in that points systemd-resolved there. */
  resolverFile: path.default('/run/systemd/resolved.conf.d/60-kiln-services.conf'),
  /** Pods from the store may do all that pods of the machine's own files may. Whoever writes the store is then root here. */
  storePodsMayUseHost: flag.default(false),
})
export type Settings = z.output<typeof Settings>

/** What the runtime knows of its machine; a machine without facts runs pods from files all the same. */
export type Machine = {
  id: string
  address: string | undefined
  bootUrl: string | undefined
  storeEndpoints: string[]
}

export function readMachine(file: string): Machine {
  const unknown = { id: hostname(), address: undefined, bootUrl: undefined, storeEndpoints: [] }
  if (!existsSync(file)) return unknown
  try {
    const facts = MachineFacts.parse(JSON.parse(readFileSync(file, 'utf8')))
    return {
      id: facts.id,
      address: facts.address,
      bootUrl: facts.bootUrl,
      // A member of the store asks itself first.
      storeEndpoints: [...facts.storeEndpoints].sort(
        (a, b) => Number(b.includes(`//${facts.address}:`)) - Number(a.includes(`//${facts.address}:`)),
      ),
    }
  } catch (error) {
    throw new Fault('MACHINE_FACTS_INVALID', `cannot read ${file}`, { cause: error })
  }
}
