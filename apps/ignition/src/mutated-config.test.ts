import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseIgnition } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { noProgress } from './config-cache.ts'
import { ConfigInvalid } from './config-invalid.ts'
import { fetchConfig } from './fetch-stage.ts'
import { runFiles } from './files-stage.ts'
import type { Run } from './run.ts'
import { simulatedRun } from './simulated-run.ts'
import { runAll } from './stages.ts'

const owner = { user: { id: process.getuid!() }, group: { id: process.getgid!() } }
const hash = `sha256-${createHash('sha256').update('x').digest('hex')}`
const contents = { source: 'data:,x', verification: { hash } }
const valid = {
  ignition: {
    version: '3.6.0',
    timeouts: { httpTotal: 1 },
    proxy: { noProxy: ['a'] },
    config: { merge: [] },
  },
  kernelArguments: { shouldExist: ['a'], shouldNotExist: ['b'] },
  storage: {
    disks: [{ device: '/dev/vda', wipeTable: true, partitions: [{ number: 1, label: 'A', sizeMiB: 8 }] }],
    raid: [{ name: 'r', level: 'raid1', devices: ['/dev/b', '/dev/c'] }],
    luks: [{ name: 'l', device: '/dev/d', keyFile: { source: 'data:,k' }, clevis: { tpm2: true } }],
    filesystems: [{ device: '/dev/disk/by-partlabel/A', format: 'ext4', path: '/var', label: 'v' }],
    directories: [{ path: '/srv', mode: 0o755, ...owner }],
    files: [
      { path: '/srv/a', contents: { source: 'data:,a' }, mode: 0o600, ...owner },
      { path: '/srv/b', append: [{ source: 'data:,b' }, { source: 'data:,c' }], ...owner },
      { path: '/srv/c', overwrite: true, contents, ...owner },
    ],
    links: [{ path: '/srv/l', target: '/srv/a', ...owner }],
  },
  passwd: {
    users: [{ name: 'u', uid: 1234, groups: ['g'], homeDir: '/home/u', sshAuthorizedKeys: ['k'] }],
    groups: [{ name: 'g' }],
  },
  systemd: {
    units: [
      {
        name: 'a.service',
        enabled: true,
        contents: '[Install]\nWantedBy=x\n',
        dropins: [{ name: 'b.conf' }],
      },
    ],
  },
}

const hostile = fc.oneof(
  fc.constantFrom<unknown>(
    ...[
      null,
      true,
      [],
      {},
      [null],
      '',
      '/',
      '..',
      '/..',
      '/../../../../x',
      '/srv/../..',
      './a',
      'a/b',
      '//a',
    ],
    ...[
      'a\u0000b',
      '/a\u0000b',
      'a\u0000.service',
      '\n',
      'a:b',
      '%',
      'data:,%zz',
      'http://[',
      '\ud800',
      '__proto__',
      'constructor',
      '-x',
    ],
    ...['/srv', '/srv/l/x', '/srv/a', '/etc/passwd', 'x'.repeat(5000), `/${'d/'.repeat(3000)}x`],
    ...[-1, 0, 0.5, 1e21, 2 ** 53, 0o7777, 0o10000],
  ),
  fc.json().map((text) => JSON.parse(text) as unknown),
)

type Tree = Record<string, unknown>
type Change = { at: number; how: 'replace' | 'remove' | 'add' | 'twice'; value: unknown }

const changes = fc.array(
  fc.record<Change>({
    at: fc.nat(),
    how: fc.constantFrom('replace', 'replace', 'remove', 'add', 'twice'),
    value: hostile,
  }),
  { minLength: 1, maxLength: 3 },
)

/** The valid config with a few values replaced, removed, repeated or added anywhere but in its version. */
function mutated(list: readonly Change[], base: object = valid): string {
  const config = structuredClone(base) as Tree
  for (const { at, how, value } of list) {
    const places: [Tree, string][] = []
    const walk = (node: unknown): void => {
      if (typeof node !== 'object' || node === null) return
      for (const [name, child] of Object.entries(node)) {
        if (name !== 'version') places.push([node as Tree, name])
        walk(child)
      }
    }
    walk(config)
    const [parent, name] = places[at % places.length] ?? [config, 'storage']
    if (how === 'replace') parent[name] = value
    else if (how === 'twice' && Array.isArray(parent)) parent.push(structuredClone(parent[Number(name)]))
    else if (how === 'add' && Array.isArray(parent)) parent.push(value)
    else if (how === 'add') parent[typeof value === 'string' ? value : 'constructor'] = value
    else if (Array.isArray(parent)) parent.splice(Number(name), 1)
    else delete parent[name]
  }
  return JSON.stringify(config, null, 1)
}

/** A run whose user config is the text. */
function machine(text: string) {
  const at = simulatedRun()
  const platformFile = join(at.folder, 'config.ign')
  writeFileSync(platformFile, text)
  const options = { ...at.run.options, platformFile, systemConfigDir: join(at.folder, 'none') }
  return { ...at, run: { ...at.run, options, hasProgram: () => true } }
}

test('a changed config is either usable or has an error, and every finding has a place in it', () => {
  fc.assert(
    fc.property(changes, (list) => {
      const text = mutated(list)
      const { config, problems } = parseIgnition(text)
      expect(config === undefined).toBe(problems.some(({ severity }) => severity === 'error'))
      const lines = text.split('\n')
      for (const { path, line, column } of problems) {
        expect(path.startsWith('$')).toBe(true)
        if (line === 0) expect(path).toBe('$')
        else expect(column).toBeLessThanOrEqual(Buffer.byteLength(lines[line - 1]!) + 1)
      }
    }),
    { numRuns: 500 },
  )
})

test('with a config that has an error no disk is looked for, no program runs and no root is made', async () => {
  let refused = 0
  await fc.assert(
    fc.asyncProperty(changes, async (list) => {
      const text = mutated(list)
      if (parseIgnition(text).config !== undefined) return
      refused++
      const { run, folder, root, commands } = machine(text)
      const looked: string[] = []
      const disk = (device: string): never => {
        looked.push(device)
        throw new Error('a disk was looked for')
      }
      await expect(runAll({ ...run, devices: { ...run.devices, disk } }, () => undefined)).rejects.toThrow(
        ConfigInvalid,
      )
      expect([looked, commands, existsSync(root)]).toEqual([[], [], false])
      rmSync(folder, { recursive: true })
    }),
    { numRuns: 150 },
  )
  expect(refused).toBeGreaterThan(20)
})

test('a usable one ends with a root or with a fault that has a code, and touches nothing outside of the root', async () => {
  // Only what the files stage does: the disks of this machine are none of its business.
  const { directories, files, links } = valid.storage
  const inside = [...files, { path: '/out/x', overwrite: true, contents: { source: 'data:,new' }, ...owner }]
  const base = { ...valid, storage: { directories, files: inside, links }, kernelArguments: {} }
  let done = 0
  await fc.assert(
    fc.asyncProperty(changes, async (list) => {
      const text = mutated(list, base)
      const { run, folder, root } = machine(text)
      mkdirSync(join(folder, 'outside'))
      writeFileSync(join(folder, 'outside/x'), 'before')
      mkdirSync(root)
      symlinkSync(join(folder, 'outside'), join(root, 'out'))
      const command: Run['command'] = async () => ({ code: 0, stdout: '' })
      try {
        await runFiles(await fetchConfig(run), noProgress, { ...run, command })
        done++
      } catch (error) {
        if (!(error instanceof Fault)) throw new Error(`no fault for ${text}`, { cause: error })
      }
      expect(readdirSync(folder).toSorted()).toEqual(['config.ign', 'outside', 'root'])
      expect(readdirSync(join(folder, 'outside'))).toEqual(['x'])
      expect(readFileSync(join(folder, 'outside/x'), 'utf8')).toBe('before')
      rmSync(folder, { recursive: true })
    }),
    { numRuns: 150 },
  )
  expect(done).toBeGreaterThan(20)
})
