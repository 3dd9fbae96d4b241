import * as z from 'zod'
import { HostName } from './network-names.ts'

const port = z.number().int().min(1).max(65535)
/** A port's number, or its name among the container's ports. */
const portOrName = z.union([port, HostName])
const seconds = (min: number, max: number, fallback: number) =>
  z.number().int().min(min).max(max).default(fallback)

const Exec = z.strictObject({ command: z.array(z.string()).min(1).max(512) })

const HttpGet = z.strictObject({
  path: z.string().max(4096).regex(/^\//, 'must begin with /').default('/'),
  port: portOrName,
  host: z.string().min(1).max(255).optional(),
  scheme: z.enum(['HTTP', 'HTTPS']).default('HTTP'),
  httpHeaders: z
    .array(
      z.strictObject({
        name: z.string().regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$/, 'must be the name of a header'),
        // A line end would begin another header.
        value: z
          .string()
          .max(4096)
          .regex(/^[\t\x20-\x7e\x80-\xff]*$/, 'must be the value of a header'),
      }),
    )
    .max(32)
    .default([]),
})

const TcpSocket = z.strictObject({ port: portOrName, host: z.string().min(1).max(255).optional() })

const Grpc = z.strictObject({ port, service: z.string().max(1024).default('') })

const exactlyOne =
  (names: readonly string[]) =>
  (of: Record<string, unknown>): boolean =>
    names.filter((name) => of[name] !== undefined).length === 1

const checkNames = ['exec', 'httpGet', 'tcpSocket', 'grpc']

/** Kubernetes' `v1.Probe`: how a container is looked at, how often, and how many looks in a row decide. */
export const Probe = z
  .strictObject({
    exec: Exec.optional(),
    httpGet: HttpGet.optional(),
    tcpSocket: TcpSocket.optional(),
    grpc: Grpc.optional(),
    initialDelaySeconds: seconds(0, 86_400, 0),
    periodSeconds: seconds(1, 86_400, 10),
    timeoutSeconds: seconds(1, 3_600, 1),
    successThreshold: seconds(1, 1_000, 1),
    failureThreshold: seconds(1, 1_000, 3),
    /** Instead of the pod's, for a container that is ended as it failed this probe. */
    terminationGracePeriodSeconds: z.number().int().min(1).max(3_600).optional(),
  })
  .refine(exactlyOne(checkNames), { message: `needs exactly one of ${checkNames.join(', ')}` })
export type Probe = z.output<typeof Probe>

const hookNames = ['exec', 'httpGet', 'sleep']

/** Kubernetes' `v1.LifecycleHandler`. */
const Hook = z
  .strictObject({
    exec: Exec.optional(),
    httpGet: HttpGet.optional(),
    sleep: z.strictObject({ seconds: z.number().int().min(0).max(3_600) }).optional(),
  })
  .refine(exactlyOne(hookNames), { message: `needs exactly one of ${hookNames.join(', ')}` })

/** What is done right after a container was started, and before it is asked to end. */
export const Lifecycle = z.strictObject({ postStart: Hook.optional(), preStop: Hook.optional() })

/** What a probe or a hook does; one member is there. */
export type PodAction = Pick<Probe, 'exec' | 'httpGet' | 'tcpSocket' | 'grpc'> &
  Pick<z.output<typeof Hook>, 'sleep'>
