import { mkdtempSync, writeFileSync } from 'node:fs'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { createCa, issueCertificate } from '@kiln/pki'
import { afterEach, expect, test } from 'vitest'
import { createPeerServer, refreshServers } from './peer-tls.ts'

const servers: Server[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
})

test('a renewed certificate is shown by every peer port once they looked at their files again', async () => {
  const now = new Date()
  const ca = await createCa({ name: 'test', days: 1, now })
  const folder = mkdtempSync(join(tmpdir(), 'kiln-peer-'))
  const file = (name: string): string => join(folder, name)
  const renew = async (): Promise<void> => {
    const subject = {
      commonName: 'm1',
      names: ['127.0.0.1'],
      use: ['server', 'client'],
      days: 1,
      now,
    } as const
    const pair = await issueCertificate(ca, subject)
    writeFileSync(file('cert.pem'), pair.certificate)
    writeFileSync(file('key.pem'), pair.key)
  }
  writeFileSync(file('ca.pem'), ca.certificate)
  await renew()
  const tls = {
    certFile: file('cert.pem'),
    keyFile: file('key.pem'),
    caFile: file('ca.pem'),
    clientCertAuth: false,
  }
  for (let count = 0; count < 2; count++) {
    const server = createPeerServer(tls, (socket) => socket.on('error', () => undefined)).listen(
      0,
      '127.0.0.1',
    )
    await new Promise((resolve) => server.once('listening', resolve))
    servers.push(server)
  }
  const shown = (server: Server): Promise<string> =>
    new Promise((resolve, reject) => {
      const { port } = server.address() as AddressInfo
      const socket = connect({ host: '127.0.0.1', port, ca: ca.certificate }, () => {
        resolve(socket.getPeerCertificate().serialNumber)
        socket.destroy()
      })
      socket.on('error', reject)
    })
  const seen = async (): Promise<string[]> => Promise.all(servers.map(shown))

  let pems = refreshServers(servers, tls, '')
  const before = await seen()
  await renew()
  expect(await seen()).toEqual(before)
  pems = refreshServers(servers, tls, pems)
  const after = await seen()
  expect(new Set(after).size).toBe(1)
  expect(after[0]).not.toBe(before[0])
  expect(refreshServers(servers, tls, pems)).toBe(pems)
})
