import net from 'node:net'
import tls from 'node:tls'

/** How a client shows and checks certificates. */
export type WireClientTls = {
  ca?: string | Buffer | (string | Buffer)[]
  cert?: string | Buffer
  key?: string | Buffer
  /** Oldest protocol; default TLSv1.2. */
  minVersion?: 'TLSv1.2' | 'TLSv1.3'
}

/**
 * Opens a socket, and on it a TLS session that agrees on HTTP/2 (RFC 9113, section 3.2). `done` is called once, in a later turn, unless the
 * returned function ended it before. A host that is an address is not sent as a name (RFC 6066, section 3); the certificate is checked
 * against it all the same.
 */
export function openClientSocket(
  at: { host: string; port: number },
  material: WireClientTls | (() => WireClientTls) | undefined,
  done: (outcome: net.Socket | Error) => void,
): () => void {
  let socket: net.Socket
  try {
    socket = material === undefined ? net.connect({ ...at, noDelay: true }) : connectTls(at, material)
  } catch (error) {
    // Key material that OpenSSL cannot read.
    let wanted = true
    setImmediate(() => {
      if (wanted) done(error as Error)
    })
    return () => {
      wanted = false
    }
  }
  const settle = (outcome: net.Socket | Error) => {
    socket.removeListener('close', onClose)
    if (outcome instanceof Error) socket.destroy()
    done(outcome)
  }
  let failure: Error | undefined
  const onClose = () => settle(failure ?? new Error('the connection was closed'))
  socket.on('error', (error) => {
    failure ??= error
  })
  socket.once('close', onClose)
  socket.once(material === undefined ? 'connect' : 'secureConnect', () => {
    const agreed = socket instanceof tls.TLSSocket ? socket.alpnProtocol : 'h2'
    settle(agreed === 'h2' ? socket : new Error('the server does not speak HTTP/2 over TLS'))
  })
  return () => {
    socket.removeListener('close', onClose)
    socket.removeAllListeners('secureConnect')
    socket.removeAllListeners('connect')
    socket.destroy()
  }
}

function connectTls(
  at: { host: string; port: number },
  material: WireClientTls | (() => WireClientTls),
): tls.TLSSocket {
  const { ca, cert, key, minVersion = 'TLSv1.2' } = typeof material === 'function' ? material() : material
  const socket = tls.connect({
    ...at,
    ca,
    cert,
    key,
    minVersion,
    servername: net.isIP(at.host) === 0 ? at.host : '',
    checkServerIdentity: (_name, certificate) => tls.checkServerIdentity(at.host, certificate),
    ALPNProtocols: ['h2'],
  })
  socket.setNoDelay(true)
  return socket
}
