import type { RequestListener } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Case } from './blackbox-case.ts'
import { type Authority, type Serving, serve } from './fixtures.ts'

const delaysMs = { success: 11_000, failure: 2_000 }
/** How often a server that is asked for a path fails before it answers. */
const failuresFirst = 3

/** What the reference's TLS servers answer, by the number of their port. */
const servedConfigs = ['', '2'].map(
  (number) => `{
\t\t\t"ignition": { "version": "3.0.0" },
\t\t\t"storage": {
\t\t\t\t"files": [{
\t\t\t\t\t"path": "/foo/bar${number}",
\t\t\t\t\t"contents": { "source": "data:,example%20file${number}%0A" }
\t\t\t\t}]
\t\t\t}
\t\t}`,
)

/** The servers of one case, and its config with their ports in it. */
export async function startCaseServers(
  each: Case,
  authority: Authority,
): Promise<{ config: string; stop(): Promise<void> }> {
  const servers: Serving[] = []
  let config = each.config
  for (const placeholder of new Set(config.match(/\$PORT\d+/g) ?? [])) {
    const number = Number(placeholder.slice('$PORT'.length))
    const secure = config.includes(`https://127.0.0.1:${placeholder}`)
    const serving = await serve(listenerFor(each, number, secure), 0, secure ? authority.server : undefined)
    // The port of a proxy that must not answer stays free after this.
    if (each.group === 'negative/proxy') await serving.close()
    else servers.push(serving)
    config = config.replaceAll(new RegExp(`\\${placeholder}(?!\\d)`, 'g'), `${serving.port}`)
  }
  return { config, stop: async () => void (await Promise.all(servers.map((server) => server.close()))) }
}

function listenerFor(each: Case, number: number, secure: boolean): RequestListener {
  if (secure) return (_, response) => void response.end(servedConfigs[number - 1] ?? servedConfigs[0])
  if (each.group.endsWith('/proxy')) return proxyListener(each)
  const asked = new Map<string, number>()
  return async (request, response) => {
    const path = request.url ?? '/'
    const count = (asked.get(path) ?? 0) + 1
    asked.set(path, count)
    if (path !== '/') {
      response.statusCode = count <= failuresFirst ? 503 : 200
      response.end()
    } else if (/"timeouts"/.test(each.config) || each.expect === 'success') {
      await sleep(delaysMs[each.expect])
      response.end(bodyFor(each))
    } else {
      // A config that asks for less patience than its parent had, then for a server that makes it wait.
      response.end(impatientConfig(`http://${request.headers.host}/`, count))
    }
  }
}

/** A config whose own file comes from a server that fails for longer than the config is willing to wait. */
const impatientConfig = (url: string, count: number): string =>
  JSON.stringify({
    ignition: { version: '3.0.0', timeouts: { httpResponseHeaders: 1, httpTotal: 1 } },
    storage: { files: [{ path: `/impatient${count}`, contents: { source: `${url}never` } }] },
  })

/** Files the case expects, as the config that would write them. */
function configFor(each: Case): string {
  const files = each.out.flatMap((disk) =>
    disk.partitions.flatMap((partition) =>
      (partition.files ?? []).map(({ dir, name, contents }) => ({
        path: `/${dir.replace(/^\/+/, '')}/${name}`,
        contents: { source: `data:,${encodeURIComponent(contents ?? '')}` },
      })),
    ),
  )
  return JSON.stringify({ ignition: { version: '3.0.0' }, storage: { files } })
}

const bodyFor = (each: Case): string => (/"(merge|replace)"/.test(each.config) ? configFor(each) : '')

function proxyListener(each: Case): RequestListener {
  return (request, response) => {
    // A proxy is asked with the whole URL (RFC 9112, section 3.2.2).
    if (!/^http:\/\/www\.fake\.tld\//.test(request.url ?? '')) response.statusCode = 400
    response.end(configFor(each))
  }
}
