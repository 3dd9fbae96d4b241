import { createHash, X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { operatorName } from '@kiln/pki/machine'
import { Fault } from '@kiln/service'
import type { FastifyRequest } from 'fastify'
import type { BootContext } from './boot-context.ts'
import { type Labels, labelsOf } from './labels.ts'

/** Who sends a request: the common name of a certificate of our CA, or nobody in particular. */
export type Caller = { kind: 'operator' } | { kind: 'machine'; id: string } | { kind: 'anonymous' }

export function callerOf(request: FastifyRequest): Caller {
  const socket = request.raw.socket as Partial<TLSSocket>
  if (socket.authorized !== true || typeof socket.getPeerCertificate !== 'function')
    return { kind: 'anonymous' }
  const name: unknown = socket.getPeerCertificate().subject?.CN
  if (typeof name !== 'string' || name === '') return { kind: 'anonymous' }
  return name === operatorName ? { kind: 'operator' } : { kind: 'machine', id: name }
}

/** Whether a request came over the TLS port. */
export function overTls(request: FastifyRequest): boolean {
  return 'encrypted' in request.raw.socket
}

/** Refuses everybody but one machine, by its own certificate. */
export function requireMachine(request: FastifyRequest, id: string, doing: string): void {
  const caller = callerOf(request)
  if (caller.kind === 'machine' && caller.id === id) return
  throw machineRequired(request, `only machine ${id} ${doing}`)
}

/** Refuses everybody but operators and the machines of one group. */
export function requireGroup(
  context: BootContext,
  request: FastifyRequest,
  at: { group: string; doing: string },
): void {
  const caller = callerOf(request)
  if (caller.kind === 'operator') return
  if (caller.kind === 'machine' && context.machines.get(caller.id)?.group === at.group) return
  throw machineRequired(
    request,
    `only an operator or a machine of group ${at.group.slice(0, 128)} ${at.doing}`,
  )
}

/** What a machine without a valid certificate is told: an expired one is named as what it is. */
export function machineRequired(request: FastifyRequest, sentence: string): Fault {
  const shown = shownCertificate(request)
  if (!shown?.expired) return new Fault('MACHINE_REQUIRED', sentence)
  return new Fault('CERTIFICATE_EXPIRED', `the certificate of this machine ended at ${shown.endedAt}`, {
    remedy:
      'if its clock is right, start kiln-boot with --renew-expired-days and the machine renews by itself',
  })
}

/** The machine that asks for a certificate anew, and the hash of the key it has shown to hold. */
export type Renewer = { id: string; keyHash: string }

/** Who may renew: a machine whose certificate holds, or ended no longer ago than the operator allows. */
export function renewerOf(
  request: FastifyRequest,
  at: { ca: string; graceMs: number; now: Date },
): Renewer | undefined {
  const caller = callerOf(request)
  const shown = shownCertificate(request)
  if (!shown) return undefined
  if (caller.kind === 'machine') return { id: caller.id, keyHash: shown.keyHash }
  // That it expired is the last thing node:tls says of it, so whose it is must be looked at again.
  const late = shown.expired && at.now.getTime() - Date.parse(shown.endedAt) <= at.graceMs
  if (!late || !shown.certificate.verify(new X509Certificate(at.ca).publicKey)) return undefined
  return shown.name === operatorName ? undefined : { id: shown.name, keyHash: shown.keyHash }
}

/** The certificate that was shown, whether or not it is to be believed. The handshake proved that its key is held. */
function shownCertificate(request: FastifyRequest) {
  const socket = request.raw.socket as Partial<TLSSocket>
  const peer = socket.getPeerCertificate?.()
  if (!peer?.raw || typeof peer.subject?.CN !== 'string') return undefined
  const certificate = new X509Certificate(peer.raw)
  const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
  return {
    certificate,
    name: peer.subject.CN,
    keyHash: createHash('sha256').update(key).digest('hex'),
    expired: String(socket.authorizationError) === 'CERT_HAS_EXPIRED',
    endedAt: certificate.validToDate.toISOString(),
  }
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
  const plain = overTls(request) ? `${parsed[1]}:${context.settings.address.port}` : host
  return {
    base: publicUrl ?? `http://${plain}`,
    tlsBase: publicTlsUrl ?? `https://${parsed[1]}:${context.tlsPort()}`,
  }
}

/** Labels of the request's query. */
export function requestLabels(request: { url: string }): Labels {
  const query = request.url.indexOf('?')
  return labelsOf(new URLSearchParams(query < 0 ? '' : request.url.slice(query + 1)))
}
