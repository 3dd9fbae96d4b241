import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createCa, issueCertificate } from '@kiln/pki'
import { encodeDataUrl, type IgnitionConfig } from '@kiln/schemas'
import { systemClock } from '@kiln/service'
import { expect, test } from 'vitest'
import { sendHttp } from './http-request.ts'
import { applyLuks } from './luks.ts'
import { releaseKeysOf } from './release-keys.ts'
import type { Run } from './run.ts'
import { simulatedRun } from './simulated-run.ts'

/** A server whose certificate only the authority given along vouches for. */
async function withServer(use: (url: string, authority: string) => Promise<void>): Promise<void> {
  const now = new Date()
  const ca = await createCa({ name: 'own', days: 1, now })
  const pair = await issueCertificate(ca, {
    ...{ commonName: 'keys', names: ['localhost'], use: ['server'], days: 1, now },
  })
  const server = createServer(
    { key: pair.key, cert: pair.certificate },
    (_, reply) => void reply.end('the key'),
  )
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve))
  try {
    await use(`https://localhost:${(server.address() as AddressInfo).port}/key`, ca.certificate)
  } finally {
    server.close()
  }
}

function realFetching(): Run {
  const { run } = simulatedRun()
  const fetcher = { http: sendHttp, clock: systemClock, network: true }
  const command: Run['command'] = async (_, args) => ({
    code: 0,
    stdout: args[0] === 'luksUUID' ? '11111111-1111-4111-8111-111111111111' : '',
  })
  return { ...run, fetcher, command, devices: { ...run.devices, resolve: async (device) => device } }
}

const configOf = (authorities: string[], storage: IgnitionConfig['storage']): IgnitionConfig => ({
  ignition: {
    version: '3.4.0',
    timeouts: { httpTotal: authorities.length > 0 ? 30 : 2 },
    security: {
      tls: {
        certificateAuthorities: authorities.map((pem) => ({ source: encodeDataUrl(Buffer.from(pem)) })),
      },
    },
  },
  storage: storage!,
})

test("a LUKS key file comes from a server that only the config's own authorities vouch for", async () => {
  await withServer(async (source, authority) => {
    const luks = [{ name: 'data', device: '/dev/null', wipeVolume: true, keyFile: { source } }]
    const [volume] = await applyLuks(configOf([authority], { luks }), 'hash', realFetching())
    expect(Buffer.from(volume?.key ?? '', 'base64').toString()).toBe('the key')
    // Without them it is not believed, and the config's timeout ends the tries.
    await expect(applyLuks(configOf([], { luks }), 'hash', realFetching())).rejects.toMatchObject({
      code: 'FETCH_TIMED_OUT',
      path: '$.storage.luks.0',
    })
  })
})

test('so do the keys that sign releases', async () => {
  await withServer(async (source, authority) => {
    const files = [{ path: '/etc/kiln/release-keys/own.pub', contents: { source } }]
    expect(await releaseKeysOf(configOf([authority], { files }), realFetching())).toEqual(['the key'])
  })
})
