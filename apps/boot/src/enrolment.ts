import { randomBytes, timingSafeEqual } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { csrKeyHash, type KeyPair, signCsr } from '@kiln/pki'
import type { EnrolmentReply, EnrolmentRequest, MachineRecord } from '@kiln/schemas'
import { atomicWrite, Fault } from '@kiln/service'
import * as z from 'zod'

/** How long a token may be used after it was made. */
export const tokenLifeMs = 15 * 60_000
const certificateDays = 365

/** `enrolments/ID.json` (0600): the token of the current install, and what it was used for. */
export const Enrolment = z.looseObject({
  formatVersion: z.literal(1),
  token: z.string(),
  /** The install the token belongs to: `installs` of the machine's record. */
  install: z.number().int(),
  expiresAt: z.iso.datetime(),
  /** sha256 of the public key that was certified with it; the same key may ask again for its lost reply. */
  usedByKey: z.string().optional(),
  certificate: z.string().optional(),
})
export type Enrolment = z.output<typeof Enrolment>

export type EnrolmentVerdict = { kind: 'issue' } | { kind: 'repeat'; certificate: string } | Refusal

/** `alarm` when it smells of somebody who should not have the token. */
export type Refusal = { kind: 'refused'; code: string; reason: string; alarm: boolean }
export type EnrolmentOutcome = { kind: 'enrolled'; reply: EnrolmentReply; repeated: boolean } | Refusal

/** Decides on a request; pure. A token is compared before anything about it is told. */
export function judgeEnrolment(
  enrolment: Enrolment | undefined,
  at: { token: string; keyHash: string; now: Date },
): EnrolmentVerdict {
  if (!enrolment || !sameToken(enrolment.token, at.token)) {
    return refuse('ENROL_TOKEN_WRONG', 'the token is not the one of this machine', true)
  }
  if (enrolment.usedByKey !== undefined && enrolment.usedByKey !== at.keyHash) {
    return refuse('ENROL_TOKEN_USED', 'the token was already used with another key', true)
  }
  if (Date.parse(enrolment.expiresAt) <= at.now.getTime()) {
    return refuse('ENROL_TOKEN_EXPIRED', `the token expired at ${enrolment.expiresAt}`, false)
  }
  return enrolment.certificate === undefined
    ? { kind: 'issue' }
    : { kind: 'repeat', certificate: enrolment.certificate }
}

const refuse = (code: string, reason: string, alarm: boolean): Refusal => ({
  kind: 'refused',
  code,
  reason,
  alarm,
})

function sameToken(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)]
  return x.length === y.length && timingSafeEqual(x, y)
}

/**
 * The token a machine's config carries: the same for repeated fetches of one install, a new one for a new install, or
 * when the old one expired unused.
 */
export function renewTicket(enrolment: Enrolment | undefined, at: { install: number; now: Date }): Enrolment {
  const expired = enrolment !== undefined && Date.parse(enrolment.expiresAt) <= at.now.getTime()
  const usable = enrolment?.install === at.install && (!expired || enrolment.usedByKey !== undefined)
  if (usable) return enrolment
  return {
    formatVersion: 1,
    token: randomBytes(32).toString('base64url'),
    install: at.install,
    expiresAt: new Date(at.now.getTime() + tokenLifeMs).toISOString(),
  }
}

/** Certificate of a machine, from its record only. The host reaches a virtual machine's store as localhost. */
export async function certifyMachine(
  ca: KeyPair,
  csr: string,
  record: MachineRecord,
  now: Date,
): Promise<string> {
  return signCsr(ca, csr, {
    commonName: record.id,
    names: [record.id, ...(record.address ? [record.address] : []), '127.0.0.1', 'localhost'],
    use: ['server', 'client'],
    days: certificateDays,
    now,
  })
}

/** Tokens and certificates of machines, kept in `enrolments/`. Requests of one machine run one after the other. */
export class EnrolmentDesk {
  readonly #folder: string
  readonly #ca: KeyPair
  readonly #turns = new Map<string, Promise<unknown>>()

  constructor(folder: string, ca: KeyPair) {
    this.#folder = folder
    this.#ca = ca
  }

  /** The token for a machine's current install. */
  async ticket(record: MachineRecord, now: Date): Promise<Enrolment> {
    return this.#inTurn(record.id, async () => {
      const before = await this.#read(record.id)
      const ticket = renewTicket(before, { install: record.installs ?? 0, now })
      if (ticket !== before) await this.#write(record.id, ticket)
      return ticket
    })
  }

  /** Certifies the key of a request; what is certified is on disk before anybody gets it. */
  async enrol(record: MachineRecord, request: EnrolmentRequest, now: Date): Promise<EnrolmentOutcome> {
    const keyHash = await csrKeyHash(request.csr)
    return this.#inTurn<EnrolmentOutcome>(record.id, async () => {
      const enrolment = await this.#read(record.id)
      const verdict = judgeEnrolment(enrolment, { token: request.token, keyHash, now })
      switch (verdict.kind) {
        case 'refused':
          return verdict
        case 'repeat':
          return { kind: 'enrolled', reply: this.#reply(verdict.certificate), repeated: true }
        case 'issue': {
          const certificate = await certifyMachine(this.#ca, request.csr, record, now)
          await this.#write(record.id, { ...(enrolment as Enrolment), usedByKey: keyHash, certificate })
          return { kind: 'enrolled', reply: this.#reply(certificate), repeated: false }
        }
      }
    })
  }

  /** sha256 of the key that the machine's last install enrolled with; undefined while it has not. */
  async enrolledKey(id: string): Promise<string | undefined> {
    return this.#inTurn(id, async () => (await this.#read(id))?.usedByKey)
  }

  #reply(certificate: string): EnrolmentReply {
    return { certificate, ca: this.#ca.certificate }
  }

  async #read(id: string): Promise<Enrolment | undefined> {
    let text: string
    try {
      text = await readFile(this.#path(id), 'utf8')
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw new Fault('STATE_UNREADABLE', `cannot read the enrolment of machine ${id}`, { cause })
    }
    try {
      return Enrolment.parse(JSON.parse(text))
    } catch (cause) {
      throw new Fault('STATE_UNREADABLE', `the enrolment of machine ${id} is damaged`, {
        cause,
        remedy: `remove enrolments/${id}.json and allow a reinstall`,
      })
    }
  }

  async #write(id: string, enrolment: Enrolment): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    await atomicWrite(this.#path(id), `${JSON.stringify(enrolment)}\n`, { mode: 0o600 })
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.json`)
  }

  #inTurn<T>(id: string, run: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(id) ?? Promise.resolve()).then(run, run)
    const settled = turn
      .catch(() => undefined)
      .then(() => {
        if (this.#turns.get(id) === settled) this.#turns.delete(id)
      })
    this.#turns.set(id, settled)
    return turn
  }
}
