import type { TLSSocket } from 'node:tls'
import { Fault } from '@kiln/service'
import type { FastifyRequest } from 'fastify'
import type { BootContext } from './boot-context.ts'
import { type Labels, labelsOf } from './labels.ts'

/** Who sends a request: the common name of a certificate of our CA, or nobody in particular. */
export type Caller = { kind: 'operator' } | { kind: 'machine'; id: string } | { kind: 'anonymous' }

/** Common name of the operator's certificate. */
export const operatorName = 'admin'

export function callerOf(request: FastifyRequest): Caller {
  const socket = request.raw.socket as Partial<TLSSocket>
  if (socket.authorized !== true || typeof socket.getPeerCertificate !== 'function')
    return { kind: 'anonymous' }
  const name: unknown = socket.getPeerCertificate().subject?.CN
  if (typeof name !== 'string' || name === '') return { kind: 'anonymous' }
  return name === operatorName ? { kind: 'operator' } : { kind: 'machine', id: name }
}

/** The caller's name for the audit log. */
export function callerName(caller: Caller): string {
  return caller.kind === 'machine' ? caller.id : caller.kind
}

/** Refuses everybody but operators. */
export async function requireOperator(
  context: BootContext,
  request: FastifyRequest,
  action: string,
): Promise<void> {
  const caller = callerOf(request)
  if (caller.kind === 'operator') return
  await context.audit.write({ action, outcome: 'refused', by: callerName(caller), from: request.ip })
  throw new Fault('OPERATOR_REQUIRED', `${action} needs an operator's certificate`, {
    remedy: 'use the TLS port with pki/admin.pem and pki/admin.key',
  })
}

/** Base URLs under which the sender of this request reaches us. */
export function basesOf(context: BootContext, request: FastifyRequest): { base: string; tlsBase: string } {
  const { publicUrl, publicTlsUrl } = context.settings
  if (publicUrl && publicTlsUrl) return { base: publicUrl, tlsBase: publicTlsUrl }
  const host = request.headers.host ?? ''
  const parsed = /^([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(:\d{1,5})?$/.exec(host)
  if (!parsed) throw new Fault('HOST_INVALID', 'the request does not say which host it was sent to')
  return {
    base: publicUrl ?? `http://${host}`,
    tlsBase: publicTlsUrl ?? `https://${parsed[1]}:${context.tlsPort()}`,
  }
}

/** Labels of the request's query. */
export function requestLabels(request: { url: string }): Labels {
  const query = request.url.indexOf('?')
  return labelsOf(new URLSearchParams(query < 0 ? '' : request.url.slice(query + 1)))
}
