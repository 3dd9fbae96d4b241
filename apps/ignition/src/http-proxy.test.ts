import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, connect as connectTo, type Server } from 'node:net'
import { createCa, issueCertificate } from '@kiln/pki'
import { expect, test } from 'vitest'
import { type HttpCall, sendHttp } from './http-request.ts'

async function listening<S extends Server, T>(server: S, use: (port: number) => Promise<T>): Promise<T> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    return await use((server.address() as AddressInfo).port)
  } finally {
    server.close()
  }
}

const call = (url: string, proxy: string, more: Partial<HttpCall> = {}): HttpCall => ({
  url,
  proxy,
  headersTimeoutMs: 5000,
  bodyBytesMax: 1000,
  ...more,
})

test('a proxy is asked for the whole URL, with the credentials of its own URL', async () => {
  const seen: unknown[] = []
  const proxy = createServer((query, reply) => {
    seen.push([query.url, query.headers.host, query.headers['proxy-authorization'], query.headers['x-own']])
    reply.end('through')
  })
  await listening(proxy, async (port) => {
    const reply = await sendHttp(
      call('http://www.fake.tld/a?b=c', `http://me:a%40b@127.0.0.1:${port}`, { headers: { 'X-Own': 'y' } }),
    )
    expect(reply.body.toString()).toBe('through')
  })
  const credentials = `Basic ${Buffer.from('me:a@b').toString('base64')}`
  expect(seen).toEqual([['http://www.fake.tld/a?b=c', 'www.fake.tld', credentials, 'y']])
})

test('https goes through a tunnel, and the certificate is that of the target', async () => {
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 1, now })
  const names = ['target.test']
  const pair = await issueCertificate(ca, { commonName: 'target', names, use: ['server'], days: 1, now })
  const target = createTlsServer(
    { key: pair.key, cert: pair.certificate },
    (query, reply) => void reply.end(`secret ${query.url}`),
  )
  const asked: string[] = []
  await listening(target, async (targetPort) => {
    const proxy = createServer()
    proxy.on('connect', (query, socket) => {
      asked.push(query.url ?? '')
      const onward = connectTo(targetPort, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n')
        onward.pipe(socket).pipe(onward)
      })
    })
    await listening(proxy, async (port) => {
      const reply = await sendHttp(
        call('https://target.test/x', `http://127.0.0.1:${port}`, { tls: { ca: [ca.certificate] } }),
      )
      expect(reply.body.toString()).toBe('secret /x')
      const wrong = call('https://other.test/x', `http://127.0.0.1:${port}`, {
        tls: { ca: [ca.certificate] },
      })
      await expect(sendHttp(wrong)).rejects.toThrow(/altnames|Hostname/i)
    })
  })
  expect(asked).toEqual(['target.test:443', 'other.test:443'])
})

test('a proxy that refuses or is not there is a transport error', async () => {
  const proxy = createServer()
  proxy.on('connect', (_, socket) => void socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'))
  const gone = await listening(proxy, async (port) => {
    await expect(sendHttp(call('https://target.test/', `127.0.0.1:${port}`))).rejects.toThrow(/403/)
    return port
  })
  await expect(sendHttp(call('http://target.test/', `127.0.0.1:${gone}`))).rejects.toThrow(/ECONNREFUSED/)
})
