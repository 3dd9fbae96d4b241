import type { IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { needsNetwork } from './needs-network.ts'

const luks = (clevis: object): object => ({ storage: { luks: [{ name: 'l', device: '/d', clevis }] } })

test.each<[string, object, boolean]>([
  [
    'contents in a data URL',
    { storage: { files: [{ path: '/a', contents: { source: 'data:,x' } }] } },
    false,
  ],
  ['contents over http', { storage: { files: [{ path: '/a', contents: { source: 'http://x' } }] } }, true],
  [
    'something to append over tftp',
    { storage: { files: [{ path: '/a', append: [{ source: 'tftp://x/a' }] }] } },
    true,
  ],
  [
    'a key file in S3',
    { storage: { luks: [{ name: 'l', device: '/d', keyFile: { source: 's3://b/k' } }] } },
    true,
  ],
  ['tang', luks({ tang: [{ url: 'http://t', thumbprint: 'x' }] }), true],
  ['tang with its advertisement', luks({ tang: [{ url: 'http://t', advertisement: '{}' }] }), false],
  ['a pin that says so', luks({ custom: { pin: 'p', config: '{}', needsNetwork: true } }), true],
  ['a pin that does not', luks({ custom: { pin: 'p', config: '{}' } }), false],
])('%s', (_, parts, needs) => {
  expect(needsNetwork({ ignition: { version: '3.6.0' }, ...parts } as IgnitionConfig)).toBe(needs)
})
