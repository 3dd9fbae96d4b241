import { BlockList, isIP } from 'node:net'
import type { IgnitionConfig } from '@kiln/schemas'
import { Fault } from '@kiln/service'

/** Proxies of a config (Ignition, `ignition.proxy`). */
export type ProxySettings = NonNullable<IgnitionConfig['ignition']['proxy']>

/**
 * Proxies of the environment, for what is fetched before a config names its own, and after one that names none:
 * HTTP_PROXY, HTTPS_PROXY and NO_PROXY, or their names in small letters. Ignition itself has none. Throws `USAGE` for a
 * proxy that is no http or https address; its value is not told, it may hold a password.
 */
export function proxyOfEnvironment(env: Record<string, string | undefined>): ProxySettings | undefined {
  const named = (name: string): string | undefined => env[name] || env[name.toLowerCase()] || undefined
  const proxyAt = (name: string): string | undefined => {
    const value = named(name)
    if (value === undefined || isProxy(value)) return value
    throw new Fault('USAGE', `${name} in the environment is not an address such as http://proxy:3128`)
  }
  const [httpProxy, httpsProxy, noProxy] = [proxyAt('HTTP_PROXY'), proxyAt('HTTPS_PROXY'), named('NO_PROXY')]
  if (httpProxy === undefined && httpsProxy === undefined) return undefined
  return {
    ...(httpProxy === undefined ? {} : { httpProxy }),
    ...(httpsProxy === undefined ? {} : { httpsProxy }),
    ...(noProxy === undefined ? {} : { noProxy: noProxy.split(',') }),
  }
}

/** A proxy may be given without its scheme. */
export const withScheme = (text: string): string =>
  /^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`

const isProxy = (text: string): boolean =>
  URL.canParse(withScheme(text)) && Object.hasOwn(portOf, new URL(withScheme(text)).protocol)

const portOf: Record<string, string> = { 'http:': '80', 'https:': '443' }

/**
 * The proxy for a URL, by the rules of Go's httpproxy that Ignition follows: a proxy of its own for each scheme, never for
 * this machine, and not for what `noProxy` names (`*`, networks, addresses, domains, each perhaps with a port).
 */
export function proxyFor(target: string, settings: ProxySettings | undefined): string | undefined {
  if (!settings) return undefined
  const url = new URL(target)
  const proxy = url.protocol === 'https:' ? settings.httpsProxy : settings.httpProxy
  if (!proxy) return undefined
  const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase()
  if (host === 'localhost' || isLoopback(host)) return undefined
  const port = url.port || portOf[url.protocol]!
  const entries = (settings.noProxy ?? []).flatMap((entry) => entry.split(','))
  const named = entries.some((entry) => excludes(entry.trim().toLowerCase(), host, port))
  return named ? undefined : proxy
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

const familyOf = (host: string): 'ipv4' | 'ipv6' => (isIP(host) === 6 ? 'ipv6' : 'ipv4')
const isLoopback = (host: string): boolean => isIP(host) !== 0 && loopback.check(host, familyOf(host))

function excludes(entry: string, host: string, port: string): boolean {
  if (entry === '') return false
  if (entry === '*') return true
  const network = /^([0-9a-f.:]+)\/(\d+)$/.exec(entry)
  if (network) return isIP(host) !== 0 && contains(network[1]!, Number(network[2]), host)
  const { name, only } = splitPort(entry)
  if (name === '' || (only !== '' && only !== port)) return false
  if (isIP(name) !== 0) return isIP(host) !== 0 && contains(name, isIP(name) === 6 ? 128 : 32, host)
  const suffix = name.startsWith('*.') ? name.slice(1) : name
  if (suffix.startsWith('.')) return host.endsWith(suffix)
  return host === suffix || host.endsWith(`.${suffix}`)
}

function contains(address: string, bits: number, host: string): boolean {
  const family = familyOf(address)
  if (isIP(address) === 0 || bits > (family === 'ipv6' ? 128 : 32)) return false
  const list = new BlockList()
  list.addSubnet(address, bits, family)
  return list.check(host, familyOf(host))
}

/** Host and port of an entry; an IPv6 address with a port has brackets. */
function splitPort(entry: string): { name: string; only: string } {
  const bracketed = /^\[([^\]]*)\](?::(\d+))?$/.exec(entry)
  if (bracketed) return { name: bracketed[1]!, only: bracketed[2] ?? '' }
  const parts = entry.split(':')
  return parts.length === 2 ? { name: parts[0]!, only: parts[1]! } : { name: entry, only: '' }
}
