import { describeError, Fault, type Log } from '@kiln/service'
import type { FastifyError, FastifyInstance } from 'fastify'

/** HTTP status of the codes this server answers with; all others are 500. Documented in docs/reference/errors.md. */
const statusByCode: Record<string, number> = {
  BODY_INVALID: 400,
  LABELS_MISSING: 400,
  CSR_INVALID: 400,
  HOST_INVALID: 400,
  OPERATOR_REQUIRED: 403,
  MACHINE_REQUIRED: 403,
  CERTIFICATE_EXPIRED: 403,
  RENEW_KEY_WRONG: 403,
  ENROL_TOKEN_WRONG: 403,
  ENROL_TOKEN_USED: 403,
  ENROL_TOKEN_EXPIRED: 403,
  MACHINE_UNKNOWN: 404,
  GROUP_UNKNOWN: 404,
  PROFILE_UNKNOWN: 404,
  CONFIG_MISSING: 404,
  CONFIG_UNREADABLE: 404,
  CONFIG_INVALID: 404,
  CHANNEL_UNKNOWN: 404,
  RELEASE_UNKNOWN: 404,
  PATH_UNKNOWN: 404,
  TLS_REQUIRED: 403,
  NAME_TAKEN: 409,
  NAME_RESERVED: 409,
  ADDRESS_TAKEN: 409,
  MACHINE_INSTALLED: 409,
  MACHINE_NOT_ASSIGNED: 409,
  REINSTALL_BEGUN: 409,
  CLUSTER_FIXED: 409,
  JOIN_REFUSED: 409,
  HALT_OUTDATED: 409,
  RELEASE_EXPIRED: 409,
  RELEASE_SIGNATURE_INVALID: 409,
  RELEASE_MANIFEST_INVALID: 409,
  RELEASE_FORMAT_UNKNOWN: 409,
  BUTANE_INVALID: 422,
  TEMPLATE_UNSUPPORTED: 422,
  REPORTS_TOO_MANY: 429,
  MACHINE_HELD: 503,
  CLUSTER_WAITING: 503,
  STORE_UNREACHABLE: 503,
}

/** Faults that pass by themselves say when to ask again. */
const retryAfterSeconds = 2

/** Every error leaves as `{error: {code, message, remedy?}}`; what is our own doing is logged with its cause. */
export function handleErrors(app: FastifyInstance, log: Log): void {
  app.setErrorHandler((error: FastifyError | Fault, request, reply) => {
    const fault = error instanceof Fault ? error : undefined
    const status = error instanceof Fault ? (statusByCode[error.code] ?? 500) : (error.statusCode ?? 500)
    if (status >= 500 && status !== 503) {
      log.error({ error, method: request.method, path: request.url.slice(0, 200) }, 'request failed')
    } else {
      log.debug({ path: request.url.slice(0, 200), status, reason: describeError(error) }, 'request refused')
    }
    if (status === 503) void reply.header('retry-after', retryAfterSeconds)
    const hidden = !fault && status >= 500
    return reply.code(status).send({
      error: {
        code: fault?.code ?? (hidden ? 'INTERNAL' : error.code),
        message: hidden ? 'the request failed; the server log says why' : error.message,
        remedy: fault?.remedy,
      },
    })
  })
  app.setNotFoundHandler((_request, reply) =>
    reply.code(404).send({ error: { code: 'PATH_UNKNOWN', message: 'no such path' } }),
  )
}
