import { expect, test } from 'vitest'
import { parseDuration, parseOptions } from './options.ts'

test('flags have one dash or two, as in Ignition', () => {
  const flags = [
    '-root',
    '/sysroot',
    '-platform=metal',
    '--stage',
    'files',
    '-config-cache',
    '/c',
    '-log-to-stdout',
  ]
  expect(parseOptions(flags, {})).toMatchObject({
    root: '/sysroot',
    platform: 'metal',
    stage: 'files',
    configCache: '/c',
    logToStdout: true,
  })
})

test.each([
  [['--platform', 'metal'], /--stage is missing/],
  [['--stage', 'all'], /--platform is missing/],
  [['--stage', 'all', '--platform', 'abc'], /abc is unknown; it is one of metal, qemu, file/],
  [['--stage', 'brew', '--platform', 'metal'], /brew is unknown/],
  [['--stage', 'all', '--platform', 'metal', '--nope'], /nope/],
  [['--stage', 'all', '--platform', 'metal', '--fetch-timeout', 'soon'], /not a duration/],
  [['--stage', 'all', '--platform', 'metal', '--disk-size', 'big'], /number of MiB/],
])('%j is refused', (flags, message) => {
  expect(() => parseOptions(flags, {})).toThrow(message)
})

test('durations are written as in Go', () => {
  expect(['2m', '1h2m3s', '500ms', '1.5s', '7'].map(parseDuration)).toEqual([
    120_000, 3_723_000, 500, 1500, 7000,
  ])
})

test('platform file takes its config from the environment', () => {
  const flags = ['--platform', 'file', '--stage', 'fetch']
  expect(parseOptions(flags, {}).platformFile).toBe('config.ign')
  const env = { IGNITION_CONFIG_FILE: '/x.ign' }
  expect(parseOptions(flags, env)).toMatchObject({ platformFile: '/x.ign', config: undefined })
  expect(parseOptions([...flags, '--config', 'http://h/c'], env).config).toBe('http://h/c')
})
