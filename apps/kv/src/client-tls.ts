import { readFileSync } from 'node:fs'
import { Fault } from '@kiln/service'
import type { WireTls } from '@kiln/wire'
import { isNameAllowed } from './certificate-names.ts'
import type { TlsFiles } from './settings/settings.ts'
import type { TlsProtocol } from './settings/tls-protocol.ts'

/** Reads certificates afresh: they may have been renewed. */
export function readTls(files: TlsFiles, protocol: TlsProtocol = { minVersion: 'TLSv1.2' }): WireTls {
  const read = (path: string): Buffer => {
    try {
      return readFileSync(path)
    } catch (cause) {
      throw new Fault('STORE_TLS_FILE', `cannot read ${path}`, { cause })
    }
  }
  const isNameChecked = files.allowedCommonNames.length > 0 || files.allowedHostnames.length > 0
  return {
    cert: read(files.certFile),
    key: read(files.keyFile),
    ...(files.caFile ? { ca: read(files.caFile) } : {}),
    ...(files.crlFile ? { crl: read(files.crlFile) } : {}),
    clientCertificate: files.clientAuth ? 'require' : files.caFile ? 'request' : 'none',
    ...(isNameChecked ? { isAllowed: (certificate) => isNameAllowed(certificate, files) } : {}),
    ...protocol,
  }
}
