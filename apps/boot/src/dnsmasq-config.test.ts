import { expect, test } from 'vitest'
import { runCommand } from './command-line.ts'

const run = (...args: string[]) => runCommand(['dnsmasq', ...args], '0.1.0')
const needed = ['--interface', 'tap0', '--boot-url', 'http://10.77.0.1:8080']

test('with a range dnsmasq leases addresses and hands out iPXE by architecture', async () => {
  const result = run(...needed, '--range', '10.77.0.10,10.77.0.50', '--gateway', '10.77.0.1')
  expect(result?.exitCode).toBe(0)
  await expect(result?.output).toMatchFileSnapshot('../testdata/dnsmasq-leases.conf')
})

test('without a range it is a proxy beside another DHCP server', async () => {
  const result = run(...needed, '--network', '10.77.0.0')
  expect(result?.exitCode).toBe(0)
  await expect(result?.output).toMatchFileSnapshot('../testdata/dnsmasq-proxy.conf')
})

test('what would break or smuggle in a line is refused, all problems at once', () => {
  const result = run(
    '--interface',
    'a b',
    '--boot-url',
    'http://x\nconf-file=/etc/shadow',
    '--range',
    '10.0.0.1,x',
  )
  expect(result?.exitCode).toBe(2)
  expect(result?.output).toMatch(/interface is not.*boot-url must be.*x is not an IPv4/)
  expect(run()?.exitCode).toBe(2)
  expect(run(...needed)?.output).toMatch(/--range, or --network/)
  expect(run(...needed, '--nope')?.exitCode).toBe(2)
})

test('help and version answer, unknown commands are refused, settings start the daemon', () => {
  expect(runCommand(['--help'], '0.1.0')?.output).toMatch(/^kiln-boot: .*\n\nusage/)
  expect(runCommand(['--version'], '0.1.0')?.output).toBe('kiln-boot 0.1.0\n')
  expect(runCommand(['serve'], '0.1.0')?.exitCode).toBe(2)
  expect(runCommand(['--address', ':8080'], '0.1.0')).toBeUndefined()
  expect(runCommand([], '0.1.0')).toBeUndefined()
})
