import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import type { TLSSocket } from 'node:tls'
import type { MethodTable } from '../api/method-table.ts'
import { serveGateway } from '../gateway/gateway.ts'
import type { Settings } from '../settings/settings.ts'

export type HttpParts = {
  settings: Pick<Settings, 'cors' | 'hostWhitelist' | 'jsonGateway'>
  methods: MethodTable
  messageBytesMax: number
  /** Health, version, metrics and the like. */
  routes: RequestListener
}

/** All HTTP on the client port: who may ask, then the JSON gateway, then the fixed pages (kv.md section 8). */
export function httpListener({ settings, methods, messageBytesMax, routes }: HttpParts): RequestListener {
  return (request, response) => {
    if (!isHostAllowed(settings.hostWhitelist, request)) {
      refuseHost(request, response)
      return
    }
    allowOrigin(settings.cors, request, response)
    if (request.method === 'OPTIONS') {
      response.writeHead(200, { 'content-length': 0 })
      response.end()
      return
    }
    if (settings.jsonGateway && serveGateway({ methods, messageBytesMax }, request, response)) return
    routes(request, response)
  }
}

const hostOf = (request: IncomingMessage): string => {
  const host = request.headers.host ?? ''
  return host.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
}

/** Only without TLS: a foreign page cannot make a browser accept a certificate (CVE-2018-5702, DNS rebinding). */
function isHostAllowed(whitelist: readonly string[], request: IncomingMessage): boolean {
  if ((request.socket as TLSSocket).encrypted || whitelist.includes('*')) return true
  return whitelist.includes(hostOf(request))
}

function refuseHost(request: IncomingMessage, response: ServerResponse): void {
  const body = `
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist ${JSON.stringify(hostOf(request))}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
`
  response.writeHead(421, { 'content-type': 'text/plain; charset=utf-8' })
  response.end(body)
}

function allowOrigin(cors: readonly string[], request: IncomingMessage, response: ServerResponse): void {
  const { origin } = request.headers
  const allowed = cors.includes('*') ? '*' : origin && cors.includes(origin) ? origin : undefined
  if (!allowed) return
  response.setHeader('Access-Control-Allow-Methods', 'POST, GET, OPTIONS, PUT, DELETE')
  response.setHeader('Access-Control-Allow-Origin', allowed)
  response.setHeader('Access-Control-Allow-Headers', 'accept, content-type, authorization')
}
