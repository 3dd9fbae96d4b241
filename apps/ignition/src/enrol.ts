import { createHash, X509Certificate } from 'node:crypto'
import type { DetailedPeerCertificate } from 'node:tls'
import { createCsr, createMachineKey } from '@kiln/pki'
import { EnrolmentReply, EnrolmentTicket, MachineFacts } from '@kiln/schemas'
import { atomicWrite, Fault } from '@kiln/service'
import type { Run } from './run.ts'
import type { TargetRoot } from './target-root.ts'

/** How the machine gets its certificate; gone once it has it. */
export const ticketPath = '/etc/kiln/enrol.json'
const factsPath = '/etc/kiln/machine.json'
const folder = '/etc/kiln/pki'
const attempts = 8
const answerBytesMax = 256 * 1024
const headersTimeoutMs = 15_000
const chainMax = 8

/**
 * Gets the machine's certificate, if the config came with a ticket. The key is on ROOT before the request leaves, so
 * that a lost reply is asked for again with the same key, also after a power cut; the ticket goes last.
 */
export async function enrol(target: TargetRoot, run: Run): Promise<void> {
  const text = target.read(ticketPath)
  if (text === undefined) return
  const ticket = parsed(EnrolmentTicket, text, ticketPath)
  const facts = target.read(factsPath)
  const machine = facts === undefined ? run.machine : parsed(MachineFacts, facts, factsPath).id
  if (machine === undefined) {
    throw new Fault('ENROL_INVALID', `${ticketPath} is there but nothing says which machine this is`)
  }
  target.folder(folder, 0o755, { uid: 0, gid: 0 })
  const keyPath = target.place(`${folder}/machine.key`)
  let key = target.read(`${folder}/machine.key`)
  if (key === undefined) {
    key = createMachineKey()
    await atomicWrite(keyPath, key, { mode: 0o600 })
  }
  const reply = await request(ticket, { machine, token: ticket.token, csr: createCsr(key, machine) }, run)
  if (sha256OfCertificate(reply.ca) !== ticket.caHash) {
    throw new Fault('ENROL_UNTRUSTED', 'the certificate authority of the answer is not the one of the ticket')
  }
  if (!new X509Certificate(reply.certificate).verify(new X509Certificate(reply.ca).publicKey)) {
    throw new Fault('ENROL_UNTRUSTED', 'the answer holds a certificate that the authority did not sign')
  }
  await atomicWrite(target.place(`${folder}/ca.pem`), reply.ca, { mode: 0o644 })
  await atomicWrite(target.place(`${folder}/machine.pem`), reply.certificate, { mode: 0o644 })
  target.remove(ticketPath)
  run.reporter.say(`files: machine ${machine} has its certificate`)
}

async function request(ticket: EnrolmentTicket, body: object, run: Run): Promise<EnrolmentReply> {
  let problem: unknown
  for (let attempt = 1; attempt <= attempts; attempt++) {
    try {
      const authority = await pinnedAuthority(ticket)
      const reply = await run.fetcher.http({
        url: ticket.url,
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
        headersTimeoutMs,
        bodyBytesMax: answerBytesMax,
        tls: { ca: [authority] },
      })
      const text = reply.body.toString('utf8')
      if (reply.status === 200 || reply.status === 201)
        return parsed(EnrolmentReply, text, 'the enrolment answer')
      if (reply.status < 500 && reply.status !== 429) {
        throw new Fault(
          'ENROL_REFUSED',
          `kiln-boot refused the enrolment with ${reply.status}: ${text.slice(0, 300)}`,
          {
            remedy: 'allow the machine to be installed again (kiln machine reprovision)',
          },
        )
      }
      problem = new Error(`kiln-boot answered ${reply.status}`)
    } catch (error) {
      if (error instanceof Fault) throw error
      problem = error
    }
    run.reporter.say(`files: enrolment, try ${attempt}: ${(problem as Error).message}`)
    await new Promise<void>((resolve) => run.clock.after(Math.min(500 * 2 ** attempt, 8_000), resolve))
  }
  throw new Fault('ENROL_FAILED', `${ticket.url} gave no certificate`, { cause: problem })
}

function sha256OfCertificate(pem: string): string {
  return createHash('sha256').update(new X509Certificate(pem).raw).digest('hex')
}

function parsed<T>(schema: { parse(value: unknown): T }, text: string, what: string): T {
  try {
    return schema.parse(JSON.parse(text))
  } catch (cause) {
    throw new Fault('ENROL_INVALID', `${what} is not what it should be`, { cause })
  }
}

/**
 * The authority of the ticket, taken from the server's own chain in a handshake that carries no data. The request then
 * goes over a second connection that trusts this one certificate and is checked as any other.
 */
async function pinnedAuthority(ticket: EnrolmentTicket): Promise<string> {
  const { connect } = await import('node:tls')
  const url = new URL(ticket.url)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(url.port || 443), rejectUnauthorized: false }, () => {
      const found = authorityIn(socket.getPeerCertificate(true), ticket.caHash)
      socket.destroy()
      if (found !== undefined) resolve(found)
      else {
        const text = `${url.host} does not show the certificate authority of the ticket`
        reject(
          new Fault('ENROL_UNTRUSTED', text, { remedy: 'somebody may be in between; check the network' }),
        )
      }
    })
    socket.setTimeout(headersTimeoutMs, () => socket.destroy(new Error('no TLS handshake in time')))
    socket.on('error', reject)
  })
}

/** The certificate of a chain whose DER has this hash, as PEM. */
function authorityIn(leaf: DetailedPeerCertificate, caHash: string): string | undefined {
  let at: DetailedPeerCertificate | undefined = leaf
  for (let depth = 0; at?.raw && depth < chainMax; depth++) {
    if (createHash('sha256').update(at.raw).digest('hex') === caHash)
      return new X509Certificate(at.raw).toString()
    at = at.issuerCertificate === at ? undefined : at.issuerCertificate
  }
  return undefined
}
