import { type PodContainer, type PodManifest, podOptionsAnnotation, readPodNetworks } from '@kiln/schemas'

/** What is allowed at one place of a manifest: anything, what a function says, or the named fields and nothing else. */
type Rule = true | ((value: unknown) => boolean) | { readonly [field: string]: Rule }
/** Rules may only name fields that exist. */
type RulesFor<T> = { readonly [K in keyof T]?: Rule }

const only =
  (...values: unknown[]): Rule =>
  (value) =>
    values.includes(value)

const container: RulesFor<PodContainer> = {
  name: true,
  image: true,
  imagePullPolicy: true,
  command: true,
  args: true,
  workingDir: true,
  env: true,
  ports: true,
  resources: true,
  volumeMounts: {
    name: true,
    mountPath: true,
    readOnly: true,
    subPath: true,
    mountPropagation: only('None'),
  },
  securityContext: {
    runAsUser: true,
    runAsGroup: true,
    runAsNonRoot: true,
    readOnlyRootFilesystem: true,
    allowPrivilegeEscalation: true,
    privileged: only(false),
    capabilities: true,
    seccompProfile: { type: only('RuntimeDefault', 'Unconfined') },
  },
  startupProbe: true,
  livenessProbe: true,
  readinessProbe: true,
  lifecycle: true,
  terminationMessagePath: true,
  terminationMessagePolicy: true,
}

const spec: RulesFor<PodManifest['spec']> = {
  initContainers: container,
  containers: container,
  restartPolicy: true,
  terminationGracePeriodSeconds: true,
  hostNetwork: only(false),
  hostPID: only(false),
  hostIPC: only(false),
  shareProcessNamespace: only(false),
  hostname: true,
  nodeName: true,
  volumes: { name: true, emptyDir: true },
  securityContext: {
    runAsUser: true,
    runAsGroup: true,
    runAsNonRoot: true,
    supplementalGroups: true,
    fsGroup: true,
    fsGroupChangePolicy: true,
    seccompProfile: { type: only('RuntimeDefault', 'Unconfined') },
    // Those that the schema knows are of the pod's own namespaces.
    sysctls: true,
  },
  dnsPolicy: true,
  dnsConfig: true,
  hostAliases: true,
  enableServiceLinks: true,
  automountServiceAccountToken: true,
}

/** All that a pod of the store may ask for: what is not named here, such as a field that is new, is refused. */
const allowed: RulesFor<PodManifest> = { apiVersion: true, kind: true, metadata: true, spec, status: true }

/** Networks that are the same on every machine. */
const ownNetworks = new Set(['default', 'bridge'])

/** Why a pod of the store may not run here; undefined when it may. Whoever writes the store is not root everywhere. */
export function whyNotFromStore(manifest: PodManifest): string | undefined {
  const path = refusedAt(manifest, allowed, '')
  if (path !== undefined) return `pods from the store may not have ${path} like this`
  if (podOptionsAnnotation in manifest.metadata.annotations)
    return `pods from the store may not have the annotation ${podOptionsAnnotation}`
  const network = readPodNetworks(manifest.metadata.annotations).networks?.find(
    ({ name, ips, mac }) => !ownNetworks.has(name) || ips || mac !== undefined,
  )
  return network
    ? `pods from the store may not choose networks of the machine or addresses there, as with ${network.name}`
    : undefined
}

/** The first place that no rule allows. Lists are looked at entry by entry. */
function refusedAt(value: unknown, rule: Rule | undefined, path: string): string | undefined {
  if (value === undefined || rule === true) return undefined
  if (rule === undefined) return path
  if (typeof rule === 'function') return rule(value) ? undefined : path
  if (Array.isArray(value))
    return first(value.entries(), (at, each) => refusedAt(each, rule, `${path}[${at}]`))
  if (typeof value !== 'object' || value === null) return path
  return first(Object.entries(value), (field, each) =>
    refusedAt(each, Object.hasOwn(rule, field) ? rule[field] : undefined, path ? `${path}.${field}` : field),
  )
}

function first<K>(
  entries: Iterable<[K, unknown]>,
  look: (key: K, value: unknown) => string | undefined,
): string | undefined {
  for (const [key, value] of entries) {
    const found = look(key, value)
    if (found !== undefined) return found
  }
  return undefined
}
