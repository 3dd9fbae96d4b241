import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { runApply } from './apply.ts'
import type { Options } from './options.ts'
import { simulatedRun } from './simulated-run.ts'

/** A config in a file, and what applying it with flags ends with. */
function applying(
  config: object | string,
  environment: { container?: string; exists?: string } = { container: 'oci' },
) {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-apply-'))
  const root = join(folder, 'root')
  const path = join(folder, 'config.ign')
  writeFileSync(path, typeof config === 'string' ? config : JSON.stringify(config))
  const out = { 1: '', 2: '' }
  const { exists, ...env } = environment
  const run = async (...flags: string[]): Promise<number> =>
    runApply([...flags, '--root', root, path], {
      env,
      exists: (marker) => marker === exists,
      write: (descriptor, text) => {
        out[descriptor] += text
      },
      createRun: (options: Options) => {
        const { run } = simulatedRun({ folder })
        return {
          ...run,
          options,
          command: async () => ({ code: 0, stdout: '' }),
          warn: (line) => {
            out[2] += `${line}\n`
          },
        }
      },
    })
  return { root, path, out, run }
}

const version = { ignition: { version: '3.4.0' } }
const motd = { path: '/etc/motd', contents: { source: 'data:,hello' } }

test('accounts, files and units of a config are applied to a container, and nothing of a machine', async () => {
  const { root, run, out } = applying({
    ...version,
    storage: { files: [motd] },
    systemd: {
      units: [{ name: 'a.service', enabled: true, contents: '[Install]\nWantedBy=multi-user.target\n' }],
    },
  })
  expect([await run(), out[2]]).toEqual([0, ''])
  expect(readFileSync(join(root, 'etc/motd'), 'utf8')).toBe('hello')
  expect(readFileSync(join(root, 'etc/systemd/system-preset/20-ignition.preset'), 'utf8')).toBe(
    'enable a.service\n',
  )
  for (const path of ['.ignition-result.json', '.ignition-journal', 'machine-id', 'crypttab']) {
    expect(existsSync(join(root, 'etc', path))).toBe(false)
  }
})

test('what a container cannot have is refused by its path, or left out', async () => {
  const parts: [string, object][] = [
    ['$.kernelArguments.shouldExist', { kernelArguments: { shouldExist: ['a'] } }],
    ['$.kernelArguments.shouldNotExist', { kernelArguments: { shouldNotExist: ['a'] } }],
    ['$.storage.disks', { storage: { disks: [{ device: '/dev/vda' }] } }],
    ['$.storage.raid', { storage: { raid: [{ name: 'r', level: 'raid1', devices: ['/dev/a', '/dev/b'] }] } }],
    ['$.storage.luks', { storage: { luks: [{ name: 'l', device: '/dev/a' }] } }],
    ['$.storage.filesystems', { storage: { filesystems: [{ device: '/dev/a', format: 'ext4' }] } }],
  ]
  for (const [path, part] of parts) {
    const storage = { files: [motd], ...(part as { storage?: object }).storage }
    const config = { ...version, ...part, storage }
    const refused = applying(config)
    expect(await refused.run()).toBe(1)
    expect(refused.out[2]).toContain(`PART_UNSUPPORTED: a container cannot have what ${path} asks for`)
    expect(existsSync(refused.root)).toBe(false)
    const without = applying(config)
    expect(await without.run('--ignore-unsupported')).toBe(0)
    expect(without.out[2]).toContain(`${path} is left out`)
    expect(existsSync(join(without.root, 'etc/motd'))).toBe(true)
  }
})

test('it runs in a container alone', async () => {
  const config = { ...version, storage: { files: [motd] } }
  const machine = applying(config, {})
  expect(await machine.run()).toBe(1)
  expect(machine.out[2]).toMatch(/NO_CONTAINER: .* Install the machine again/)
  expect(existsSync(machine.root)).toBe(false)
  for (const marker of ['/run/.containerenv', '/.dockerenv']) {
    expect(await applying(config, { exists: marker }).run()).toBe(0)
  }
})

test('offline, a config that needs the network is refused before anything is written', async () => {
  const file = { path: '/etc/far', contents: { source: 'http://192.0.2.1/far' } }
  const far = applying({ ...version, storage: { files: [motd, file] } })
  expect(await far.run('--offline')).toBe(1)
  expect(far.out[2]).toContain('NEEDS_NETWORK')
  expect(existsSync(far.root)).toBe(false)
  const merged = applying({
    ignition: { version: '3.4.0', config: { merge: [{ source: 'http://192.0.2.1/c' }] } },
  })
  expect(await merged.run('--offline')).toBe(1)
  expect(await applying({ ...version, storage: { files: [motd] } }).run('--offline')).toBe(0)
})

test('an invalid config says where, and a wrong command line what is right', async () => {
  const invalid = applying('{"ignition": {"version": "3.4.0"},\n "storage": {"files": [{"path": "x"}]}}')
  expect(await invalid.run()).toBe(1)
  expect(invalid.out[2]).toMatch(/\$\.storage\.files\.0\.path:2:\d+/)
  const { run, out } = applying(version)
  expect(await run('--unheard-of')).toBe(1)
  expect(out[2]).toMatch(/unknown flag --unheard-of[\s\S]*usage: ignition-apply/)
  expect(await run('another')).toBe(1)
  expect(await run('--help')).toBe(0)
  expect(out[1]).toContain('--ignore-unsupported')
  expect(await applying(version).run('--root')).toBe(1)
})
