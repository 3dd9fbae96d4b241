import { expect, test } from 'vitest'
import { proxyFor, proxyOfEnvironment } from './proxy-rules.ts'

const proxy = 'http://proxy:3128'
const excluded = (target: string, ...noProxy: string[]): boolean =>
  proxyFor(target, { httpProxy: proxy, httpsProxy: proxy, noProxy }) === undefined

test('each scheme has its own proxy, and http is none for https', () => {
  const settings = { httpProxy: 'http://a', httpsProxy: 'http://b' }
  expect(proxyFor('http://x/', settings)).toBe('http://a')
  expect(proxyFor('https://x/', settings)).toBe('http://b')
  expect(proxyFor('https://x/', { httpProxy: 'http://a' })).toBeUndefined()
  expect(proxyFor('http://x/', undefined)).toBeUndefined()
})

test.each<[string, string, boolean]>([
  ['http://localhost/', '', true],
  ['http://127.9.0.1:8080/', '', true],
  ['http://[::1]/', '', true],
  ['http://10.1.2.3/', '', false],
  ['http://10.1.2.3/', '*', true],
  ['http://10.1.2.3/', '10.0.0.0/8', true],
  ['http://11.1.2.3/', '10.0.0.0/8', false],
  ['http://[fd00::5]/', 'fd00::/8', true],
  ['http://10.1.2.3/', '10.1.2.3', true],
  ['http://10.1.2.3:81/', '10.1.2.3:80', false],
  ['http://10.1.2.3/', '10.1.2.3:80', true],
  ['http://[fd00::5]:81/', '[fd00::5]:81', true],
  ['http://example.com/', 'example.com', true],
  ['http://a.example.com/', 'example.com', true],
  ['http://example.com/', '.example.com', false],
  ['http://a.example.com/', '.example.com', true],
  ['http://example.com/', '*.example.com', false],
  ['http://a.example.com/', '*.example.com', true],
  ['http://notexample.com/', 'example.com', false],
  ['http://EXAMPLE.com/', 'Example.COM', true],
  ['http://example.com:8080/', 'example.com:8080', true],
  ['http://example.com:8080/', 'example.com:80', false],
  ['https://example.com/', 'example.com:443', true],
  ['http://example.com/', 'other.org, example.com', true],
  ['http://example.com/', ':80', false],
  ['http://example.com/', '10.0.0.0/99', false],
])('%s and noProxy %j', (target, entry, without) => {
  expect(excluded(target, entry)).toBe(without)
})

test('the environment names proxies in capitals or small letters, capitals first', () => {
  expect(proxyOfEnvironment({})).toBeUndefined()
  expect(proxyOfEnvironment({ HTTP_PROXY: '', NO_PROXY: 'a' })).toBeUndefined()
  const env = {
    HTTP_PROXY: 'proxy:3128',
    http_proxy: 'http://other',
    https_proxy: 'https://b',
    no_proxy: 'x, .y',
  }
  const settings = proxyOfEnvironment(env)
  expect(settings).toEqual({ httpProxy: 'proxy:3128', httpsProxy: 'https://b', noProxy: ['x', ' .y'] })
  expect(proxyFor('http://z/', settings)).toBe('proxy:3128')
  expect(proxyFor('https://a.y/', settings)).toBeUndefined()
})

test.each(['socks5://proxy:1080', 'http://', 'a b'])('%s is no proxy, and is not told', (value) => {
  expect(() => proxyOfEnvironment({ HTTPS_PROXY: value })).toThrow(
    /^HTTPS_PROXY in the environment is not an address such as http:\/\/proxy:3128$/,
  )
})
