import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type PeerCertificate } from 'node:tls'
import { createWireServer } from '@kiln/wire'
import { expect, test } from 'vitest'
import { isNameAllowed } from './certificate-names.ts'
import { readTls } from './client-tls.ts'
import { writeTestCertificates } from './testing/test-certificates.ts'

const certificate = { subject: { CN: 'member' }, subjectaltname: 'DNS:*.example.com, IP Address:10.0.0.1' }

test('a certificate comes in by its common name or one of its host names', () => {
  const allows = (allowedCommonNames: string[], allowedHostnames: string[]): boolean =>
    isNameAllowed(certificate as PeerCertificate, { allowedCommonNames, allowedHostnames })
  expect(allows([], [])).toBe(true)
  expect(allows(['other', 'member'], [])).toBe(true)
  expect(allows(['other'], [])).toBe(false)
  expect(allows([], ['a.example.com'])).toBe(true)
  expect(allows([], ['10.0.0.1'])).toBe(true)
  expect(allows([], ['10.0.0.2', 'a.b.example.com'])).toBe(false)
  const none = { allowedCommonNames: ['member'], allowedHostnames: ['x'] }
  expect(isNameAllowed({} as PeerCertificate, none)).toBe(false)
})

test('a client whose certificate verifies but has another name is cut off', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'kiln-kv-'))
  const files = await writeTestCertificates(folder, {
    commonName: 'test',
    names: ['127.0.0.1', 'good.example'],
  })
  const isLetIn = async (host: string): Promise<boolean> => {
    const tls = readTls(
      {
        certFile: files.cert,
        keyFile: files.key,
        caFile: files.ca,
        crlFile: '',
        clientAuth: true,
        allowedCommonNames: [],
        allowedHostnames: [host],
      },
      undefined,
    )
    const server = createWireServer({
      tls,
      http: (_request, response) => void response.end('in'),
    })
    const { port } = await server.listen({ host: '127.0.0.1', port: 0 })
    const [ca, cert, key] = await Promise.all([files.ca, files.cert, files.key].map((file) => readFile(file)))
    const answer = await new Promise<string>((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, ca: ca!, cert: cert!, key: key! }, () => {
        socket.write('GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n')
      })
      let text = ''
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      socket.on('error', () => resolve(text))
      socket.on('close', () => resolve(text))
    })
    await server.close({ graceMs: 0 })
    return answer.startsWith('HTTP/1.1 200')
  }
  expect(new X509Certificate(await readFile(files.cert)).subjectAltName).toContain('good.example')
  expect(await isLetIn('good.example')).toBe(true)
  expect(await isLetIn('bad.example')).toBe(false)
  await rm(folder, { recursive: true })
})
