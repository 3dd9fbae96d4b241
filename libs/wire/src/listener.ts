import net from 'node:net'
import tls from 'node:tls'
import type { WireLimits } from './limits.ts'

export type WireTls = {
  cert: string | Buffer
  key: string | Buffer
  /** CA for client certificates. */
  ca?: string | Buffer | (string | Buffer)[]
  crl?: string | Buffer | (string | Buffer)[]
  /** `request` accepts clients without a certificate, `require` does not. Default `none`. */
  clientCertificate?: 'none' | 'request' | 'require'
  /** Which of the client certificates that verified may come in; default all. */
  isAllowed?: (certificate: tls.PeerCertificate) => boolean
  /** OpenSSL cipher list, and the oldest (default TLSv1.2) and newest protocol. */
  ciphers?: string
  minVersion?: 'TLSv1.2' | 'TLSv1.3'
  maxVersion?: 'TLSv1.2' | 'TLSv1.3'
}

/** A port, or the path of a unix socket, which is made within the call. */
export type ListenPlace = { host?: string; port: number } | { path: string }

export type Listener = {
  listen(at: ListenPlace): Promise<{ host: string; port: number }>
  renewTls(settings: WireTls): void
  /** Stops accepting; connections handed on stay. */
  close(): void
}

/**
 * Accepts connections, plain or TLS, within the limits, and hands them on once they can carry bytes. TLS handshakes cost CPU time, so that
 * only some go on at once and the others wait unread.
 */
export function createListener(
  settings: WireTls | undefined,
  limits: WireLimits,
  accept: (socket: net.Socket) => void,
): Listener {
  const open = new Set<net.Socket>()
  const waiting: net.Socket[] = []
  let handshakes = 0

  const secure = settings === undefined ? undefined : tls.createServer(tlsOptions(settings, limits))
  // Every handshake ends in exactly one of these two events.
  secure?.on('secureConnection', (socket) => {
    handshakeEnded()
    socket.on('error', () => {})
    if (settings?.isAllowed && !settings.isAllowed(socket.getPeerCertificate())) socket.destroy()
    else accept(socket)
  })
  secure?.on('tlsClientError', (_error, socket) => {
    handshakeEnded()
    socket.destroy()
  })

  function handshakeEnded(): void {
    handshakes--
    beginHandshakes()
  }

  function beginHandshakes(): void {
    while (handshakes < limits.handshakesMax) {
      const socket = waiting.shift()
      if (socket === undefined) return
      if (socket.destroyed) continue
      handshakes++
      secure!.emit('connection', socket)
    }
  }

  const server = net.createServer({ noDelay: true, pauseOnConnect: settings !== undefined }, (socket) => {
    socket.on('error', () => {})
    if (open.size >= limits.connectionsMax) {
      socket.destroy()
      return
    }
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    if (secure === undefined) accept(socket)
    else {
      waiting.push(socket)
      beginHandshakes()
    }
  })

  return {
    listen(at) {
      return new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen(at, () => {
          server.removeListener('error', reject)
          // Errors of accepting (no descriptors left) do not end the server.
          server.on('error', () => {})
          const address = server.address() as net.AddressInfo | string
          if (typeof address === 'string') resolve({ host: address, port: 0 })
          else resolve({ host: address.address, port: address.port })
        })
      })
    },
    renewTls(renewed) {
      secure?.setSecureContext(tlsOptions(renewed, limits))
    },
    close() {
      server.close()
      for (const socket of waiting) socket.destroy()
    },
  }
}

function tlsOptions(settings: WireTls, limits: WireLimits): tls.TlsOptions {
  const clientCertificate = settings.clientCertificate ?? 'none'
  return {
    cert: settings.cert,
    key: settings.key,
    ca: settings.ca,
    crl: settings.crl,
    ciphers: settings.ciphers,
    minVersion: settings.minVersion ?? 'TLSv1.2',
    maxVersion: settings.maxVersion,
    requestCert: clientCertificate !== 'none',
    rejectUnauthorized: clientCertificate === 'require',
    ALPNProtocols: ['h2', 'http/1.1'],
    handshakeTimeout: limits.handshakeTimeoutMs,
  }
}

/** The common name of a client certificate that verified. */
export function peerCommonName(socket: net.Socket): string | undefined {
  if (!(socket instanceof tls.TLSSocket) || !socket.authorized) return undefined
  const name = socket.getPeerCertificate()?.subject?.CN
  return Array.isArray(name) ? name[0] : name
}
