import { readFile } from 'node:fs/promises'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { ChannelAnswer, MachinePlan, MachineRecord } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import type { LabRecord, StateFolder } from './state-folder.ts'

const requestTimeoutMs = 10_000

/** kiln-boot of a cluster as its operator reaches it: reads over plain HTTP, changes over TLS with the admin's certificate. */
export class BootClient {
  readonly #base: string
  readonly #tlsPort: number
  readonly #pki: string

  constructor(state: StateFolder, lab: LabRecord) {
    this.#base = `http://127.0.0.1:${lab.bootPort}`
    this.#tlsPort = lab.bootTlsPort
    this.#pki = state.adminPki
  }

  async isServing(): Promise<boolean> {
    try {
      const answer = await fetch(`${this.#base}/healthz`, { signal: AbortSignal.timeout(2_000) })
      return answer.ok
    } catch {
      return false
    }
  }

  async machines(): Promise<MachineRecord[]> {
    return z.array(MachineRecord).parse(await this.#get('/v1/machines'))
  }

  /** Release a group should run, or `undefined` if none was published. */
  async channel(group: string): Promise<ChannelAnswer | undefined> {
    const answer = await this.#get(`/v1/channels/${encodeURIComponent(group)}`)
    return answer === undefined ? undefined : ChannelAnswer.parse(answer)
  }

  async publish(group: string, change: { version: string; allowDowngrade?: boolean }): Promise<void> {
    await this.#operate('PUT', `/v1/channels/${encodeURIComponent(group)}`, change)
  }

  async halt(group: string, reason: string): Promise<void> {
    await this.#operate('POST', `/v1/channels/${encodeURIComponent(group)}/halt`, { reason })
  }

  /** Lets a machine install itself once more; partitions with these labels stay as they are. */
  async allowReinstall(machine: string, keep: readonly string[]): Promise<void> {
    await this.#operate('POST', `/v1/machines/${encodeURIComponent(machine)}/reinstall`, { keep })
  }

  /** Withdraws that. Answers what the machine is then; throws once it has begun. */
  async withdrawReinstall(machine: string): Promise<MachineRecord> {
    const path = `/v1/machines/${encodeURIComponent(machine)}/reinstall`
    return MachineRecord.parse(JSON.parse(await this.#operate('DELETE', path)))
  }

  /** What an install of the machine would work with; asking changes nothing. */
  async plan(machine: string): Promise<MachinePlan> {
    const path = `/v1/machines/${encodeURIComponent(machine)}/plan`
    return MachinePlan.parse(JSON.parse(await this.#operate('GET', path)))
  }

  async assign(
    machine: string,
    assignment: { group: string; name: string; address: string; role: 'store' | 'worker' },
  ): Promise<void> {
    await this.#operate('PUT', `/v1/machines/${encodeURIComponent(machine)}`, assignment)
  }

  async #get(path: string): Promise<unknown> {
    let answer: Response
    try {
      answer = await fetch(this.#base + path, { signal: AbortSignal.timeout(requestTimeoutMs) })
    } catch (cause) {
      throw new Fault('BOOT_UNREACHABLE', `kiln-boot does not answer at ${this.#base}`, { cause })
    }
    if (answer.status === 404) return undefined
    if (!answer.ok) throw new Fault('BOOT_REFUSED', `kiln-boot answers ${path} with ${answer.status}`)
    return await answer.json()
  }

  async #operate(method: string, path: string, body?: object): Promise<string> {
    const read = (name: string): Promise<string> => readFile(join(this.#pki, name), 'utf8')
    const [ca, cert, key] = await Promise.all([read('ca.pem'), read('admin.pem'), read('admin.key')])
    const payload = body === undefined ? '' : JSON.stringify(body)
    const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const outgoing = httpsRequest(
        {
          ...{ host: '127.0.0.1', port: this.#tlsPort, method, path, ca, cert, key },
          headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) },
          timeout: requestTimeoutMs,
          agent: false,
        },
        (incoming) => {
          let received = ''
          incoming.setEncoding('utf8')
          incoming.on('data', (chunk: string) => {
            received += chunk
          })
          incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text: received }))
          incoming.on('error', reject)
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error('timed out')))
      outgoing.on('error', (cause) =>
        reject(
          new Fault('BOOT_UNREACHABLE', `kiln-boot does not answer on port ${this.#tlsPort}`, { cause }),
        ),
      )
      outgoing.end(payload)
    })
    if (status >= 300) throw refusal(path, status, text)
    return text
  }
}

const Refusal = z.object({
  error: z.object({ code: z.string(), message: z.string(), remedy: z.string().optional() }),
})

function refusal(path: string, status: number, text: string): Fault {
  try {
    const { error } = Refusal.parse(JSON.parse(text))
    return new Fault(error.code, error.message, { remedy: error.remedy })
  } catch {
    return new Fault('BOOT_REFUSED', `kiln-boot answers ${path} with ${status}`)
  }
}
