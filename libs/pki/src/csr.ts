import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'

/** A new P-256 key as PKCS8 PEM; keep it 0600. */
export function createMachineKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
}

/**
 * A PKCS#10 request (RFC 2986) for a P-256 key. Written in plain DER, because the guest's agent needs nothing else
 * of X.509 and a whole library costs it a second of start time. The signer takes names from its own record.
 */
export function createCsr(keyPem: string, commonName: string): string {
  const key = createPrivateKey(keyPem)
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const name = sequence(set(sequence(oid(0x55, 0x04, 0x03), der(0x0c, Buffer.from(commonName, 'utf8')))))
  const info = sequence(der(0x02, Buffer.from([0])), name, publicKey, der(0xa0, Buffer.alloc(0)))
  const signature = sign('sha256', info, key)
  const request = sequence(
    info,
    sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02)),
    der(0x03, Buffer.concat([Buffer.from([0]), signature])),
  )
  const lines = request.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`
}

/** One DER element: tag, length, content (X.690 section 8.1). */
function der(tag: number, content: Uint8Array): Buffer {
  const length = content.length
  const header =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...header]), content])
}

const sequence = (...parts: Uint8Array[]): Buffer => der(0x30, Buffer.concat(parts))
const set = (...parts: Uint8Array[]): Buffer => der(0x31, Buffer.concat(parts))
const oid = (...bytes: number[]): Buffer => der(0x06, Buffer.from(bytes))
