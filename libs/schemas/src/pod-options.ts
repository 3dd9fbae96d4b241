import * as z from 'zod'

/** Annotation with what rkt's flags say of a pod and Kubernetes' `v1 Pod` has no field for. */
export const podOptionsAnnotation = 'kiln.dev/options'

/** A number, a name that the image's own tables have, or an absolute path there whose owner is meant. */
const Owner = z
  .string()
  .max(4096)
  .regex(/^(\d{1,10}|[A-Za-z_][A-Za-z0-9_.$-]*|\/.*)$/s, 'is no number, name or absolute path')
  .refine((text) => !text.split('/').includes('..'), 'must not contain ..')

/** rkt's isolators `os/linux/seccomp-retain-set` and `-remove-set`; sets begin with `@`. */
const Seccomp = z.strictObject({
  mode: z.enum(['retain', 'remove']),
  /** What refused calls answer; EPERM by default. */
  errno: z
    .string()
    .regex(/^E[A-Z0-9]{1,20}$/)
    .optional(),
  calls: z
    .array(z.string().regex(/^@?[a-z0-9_./-]{1,64}$/, 'is no name of a system call'))
    .min(1)
    .max(512),
})

const App = z.strictObject({
  user: Owner.optional(),
  group: Owner.optional(),
  oomScoreAdjust: z.number().int().min(-1000).max(1000).optional(),
  seccomp: Seccomp.optional(),
  /** Variables that those of the image win over. */
  env: z.record(z.string().min(1).max(320), z.string()).optional(),
})

const EmptyVolume = z.strictObject({
  mode: z.number().int().min(0).max(0o7777).optional(),
  uid: z.number().int().min(0).max(0xfffffffe).optional(),
  gid: z.number().int().min(0).max(0xfffffffe).optional(),
})

const PodOptions = z.strictObject({
  apps: z.record(z.string(), App).default({}),
  volumes: z.record(z.string(), EmptyVolume).default({}),
})
export type PodOptions = z.output<typeof PodOptions>
export type AppOption = z.output<typeof App>
export type SeccompSet = z.output<typeof Seccomp>

/** Reads the annotation, JSON; a pod without it has none of these. Answers the problem of a text that cannot be read. */
export function readPodOptions(
  annotations: Record<string, string>,
): { options: PodOptions; problem?: undefined } | { options?: undefined; problem: string } {
  const text = annotations[podOptionsAnnotation]
  if (text === undefined) return { options: { apps: {}, volumes: {} } }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { problem: 'is no JSON' }
  }
  const read = PodOptions.safeParse(value)
  if (read.success) return { options: read.data }
  const issue = read.error.issues[0]!
  return { problem: `${issue.path.map(String).join('.')}: ${issue.message}`.slice(0, 300) }
}
