import { readFileSync } from 'node:fs'
import { createServer, type Server, type Socket, connect as tcpConnect } from 'node:net'
import { createServer as createTlsServer, type Server as TlsServer, connect as tlsConnect } from 'node:tls'
import { Fault } from '@kiln/service'
import { type AllowedNames, isNameAllowed } from '../certificate-names.ts'
import type { TlsProtocol } from '../settings/tls-protocol.ts'

/** PEM files; read again when they change, so that certificates are renewed without a restart. */
export type PeerTls = {
  certFile: string
  keyFile: string
  /** What is shown when this member connects to another; default the same. */
  outgoing?: { certFile: string; keyFile: string }
  /** Default TLS 1.2 and later. */
  protocol?: TlsProtocol
  /** Who may have signed the other side. */
  caFile?: string
  /** Refuse peers without a certificate of that CA. */
  clientCertAuth: boolean
  /** Certificates that were revoked. */
  crlFile?: string
  /** Names of which a peer's certificate must have one; nothing: all that verify. */
  allowed?: AllowedNames
  /** Certificates that members made themselves: there is nothing to check them against. */
  unverified?: boolean
}

type Pems = { cert: Buffer; key: Buffer; ca: Buffer | undefined; crl: Buffer | undefined }

export function readPems(tls: PeerTls): Pems {
  try {
    return {
      cert: readFileSync(tls.certFile),
      key: readFileSync(tls.keyFile),
      ca: tls.caFile === undefined ? undefined : readFileSync(tls.caFile),
      crl: tls.crlFile === undefined ? undefined : readFileSync(tls.crlFile),
    }
  } catch (error) {
    throw new Fault('STORE_TLS_UNREADABLE', 'certificate, key or CA of the peer port cannot be read', {
      cause: error,
    })
  }
}

const protocolOf = ({ protocol }: PeerTls): TlsProtocol => protocol ?? { minVersion: 'TLSv1.2' }

/** Connects to a peer URL; `ready` runs when frames can be written. */
export function dial(url: string, tls: PeerTls | undefined, ready: () => void): Socket {
  const { protocol, hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const number = Number(port || 2380)
  if (protocol === 'http:') return tcpConnect({ host, port: number, noDelay: true }, ready)
  if (tls === undefined) throw new Fault('STORE_TLS_MISSING', `peer URL ${url} needs a certificate and a key`)
  const rejectUnauthorized = !tls.unverified
  const pems = readPems({ ...tls, ...tls.outgoing })
  const options = { host, port: number, ...pems, ...protocolOf(tls), rejectUnauthorized }
  return tlsConnect(options, ready).setNoDelay(true)
}

export function createPeerServer(tls: PeerTls | undefined, onSocket: (socket: Socket) => void): Server {
  if (tls === undefined) return createServer({ noDelay: true }, onSocket)
  return createTlsServer(
    {
      ...readPems(tls),
      ...protocolOf(tls),
      requestCert: tls.clientCertAuth,
      rejectUnauthorized: tls.clientCertAuth,
    },
    (socket) => {
      if (tls.allowed && !isNameAllowed(socket.getPeerCertificate(), tls.allowed)) socket.destroy()
      else onSocket(socket.setNoDelay(true))
    },
  )
}

/** Gives the servers their files again if they changed. Returns what to compare with next time. */
export function refreshServers(servers: readonly Server[], tls: PeerTls, last: string): string {
  const pems = readPems(tls)
  const now = [pems.cert, pems.key, pems.ca ?? '', pems.crl ?? ''].join()
  if (now !== last && last !== '')
    for (const server of servers) (server as TlsServer).setSecureContext({ ...pems, ...protocolOf(tls) })
  return now
}
