import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { MachineRecord } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import * as z from 'zod'
import { repositoryRoot } from './kiln-command.ts'
import { until } from './waiting.ts'

export type BootServerSettings = {
  dataDir: string
  assetsDir: string
  /** Where it listens on this host, or in the network namespace. */
  host: string
  port: number
  tlsPort: number
  /** Host that machines reach it by. */
  guestHost: string
  storeEndpoints: readonly string[]
  logPath: string
  networkNamespace?: string
}

const stopGraceMs = 5_000

/** A kiln-boot of a story's own. */
export class BootServerProcess {
  readonly settings: BootServerSettings
  readonly #child: ChildProcess

  private constructor(settings: BootServerSettings, child: ChildProcess) {
    this.settings = settings
    this.#child = child
  }

  static async start(settings: BootServerSettings, signal: AbortSignal): Promise<BootServerProcess> {
    const { command, args } = commandLine(settings)
    const log = openSync(settings.logPath, 'a')
    const child = spawn(command, args, { stdio: ['ignore', log, log] })
    closeSync(log)
    let ended: string | undefined
    child.once('error', (error) => {
      ended = error.message
    })
    child.once('exit', (code, cause) => {
      ended = `${cause ?? code}`
    })
    const server = new BootServerProcess(settings, child)
    try {
      await until('kiln-boot serves', { timeoutMs: 60_000, signal, intervalMs: 200 }, () => {
        if (ended !== undefined)
          throw new Fault('CANCELLED', `kiln-boot ended (${ended}), see ${settings.logPath}`)
        return server.#isServing()
      })
    } catch (error) {
      await server.stop()
      throw error
    }
    return server
  }

  async records(): Promise<MachineRecord[]> {
    return z.array(MachineRecord).parse(JSON.parse(await this.#get('/v1/machines')))
  }

  async record(mac: string): Promise<MachineRecord | undefined> {
    return (await this.records()).find((record) => record.mac === mac)
  }

  /** A change, with the operator's certificate. */
  async operate(method: 'PUT' | 'POST' | 'DELETE', path: string, body: object): Promise<void> {
    const pki = (name: string): string => readFileSync(join(this.settings.dataDir, 'pki', name), 'utf8')
    const payload = JSON.stringify(body)
    const { host, tlsPort } = this.settings
    await new Promise<void>((resolve, reject) => {
      const outgoing = httpsRequest(
        {
          ...{ host, port: tlsPort, method, path, timeout: 10_000, agent: false },
          ...{ ca: pki('ca.pem'), cert: pki('admin.pem'), key: pki('admin.key') },
          headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) },
        },
        (incoming) => {
          incoming.resume()
          if ((incoming.statusCode ?? 500) < 300) resolve()
          else reject(new Fault('BOOT_REFUSED', `kiln-boot answers ${path} with ${incoming.statusCode}`))
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error('timed out')))
      outgoing.on('error', reject)
      outgoing.end(payload)
    })
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), stopGraceMs)
    await ended
    clearTimeout(timer)
  }

  async #isServing(): Promise<true | undefined> {
    await this.#get('/healthz')
    return true
  }

  /** In a network namespace its port is not ours: bash in there asks it. */
  async #get(path: string): Promise<string> {
    const { host, port, networkNamespace } = this.settings
    if (!networkNamespace) {
      const answer = await fetch(`http://${host}:${port}${path}`, { signal: AbortSignal.timeout(5_000) })
      return await answer.text()
    }
    const script = `fetch('http://${host}:${port}${path}').then((a) => a.text()).then((t) => process.stdout.write(t))`
    return await outputOf('ip', ['netns', 'exec', networkNamespace, process.execPath, '-e', script])
  }
}

function commandLine(at: BootServerSettings): { command: string; args: string[] } {
  const args = [
    join(repositoryRoot, 'apps/boot/src/main.ts'),
    ...['--address', `${at.host}:${at.port}`],
    ...['--tls-address', `${at.host}:${at.tlsPort}`],
    ...['--data-path', at.dataDir],
    ...['--assets-path', at.assetsDir],
    ...['--public-url', `http://${at.guestHost}:${at.port}`],
    ...['--public-tls-url', `https://${at.guestHost}:${at.tlsPort}`],
    ...['--tls-names', [...new Set([at.guestHost, at.host, '127.0.0.1', 'localhost'])].join(',')],
    ...(at.storeEndpoints.length > 0 ? ['--store-endpoints', at.storeEndpoints.join(',')] : []),
  ]
  return at.networkNamespace
    ? { command: 'ip', args: ['netns', 'exec', at.networkNamespace, process.execPath, ...args] }
    : { command: process.execPath, args }
}

function outputOf(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'] })
    let text = ''
    child.stdout.setEncoding('utf8')
    child.stdout.on('data', (chunk: string) => {
      text += chunk
    })
    child.once('error', reject)
    child.once('close', (code) =>
      code === 0 ? resolve(text) : reject(new Error(`${command} ended with ${code}`)),
    )
  })
}
