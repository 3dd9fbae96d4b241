import { spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const program = fileURLToPath(new URL('main.ts', import.meta.url))

function agent(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' })
  return { status, stdout, stderr }
}

function configFile(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), 'kiln-ignition-')), 'config.ign')
  writeFileSync(path, text)
  return path
}

test('validate says what is wrong where, and its exit code whether', () => {
  const good = configFile('{"ignition": {"version": "3.4.0"}, "shape": "round"}')
  expect(agent('validate', good)).toMatchObject({
    status: 0,
    stdout: `${good}: warning at $.shape, line 1 col 36: unused key shape\n`,
  })
  const bad = configFile('{"ignition": {"version": "3.4.0"},\n "storage": {"links": [{"path": "/x"}]}}')
  expect(agent('validate', bad)).toMatchObject({
    status: 1,
    stdout: `${bad}: error at $.storage.links.0.target, line 2 col 25: link target is required\n`,
  })
  expect(agent('validate', '/nonexistent')).toMatchObject({ status: 1 })
})

test('a wrong command line is told from a failed stage', () => {
  expect(agent('--stage', 'all').status).toBe(2)
  expect(agent('validate').status).toBe(2)
  expect(agent('validate', '--strict', 'x.ign')).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('validate has no flag --strict'),
  })
  expect(agent('validate', '--help')).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('validate FILE'),
  })
  const failed = agent('-platform', 'file', '-stage', 'disks', '-config-cache', '/nonexistent/cache')
  expect(failed.status).toBe(1)
  expect(failed.stderr.trimEnd().split('\n').at(-1)).toMatch(
    /^kiln-ignition: disks: CONFIG_NOT_FETCHED: .*fetch stage/,
  )
})

test('a set-up that fails is told from a failed stage', () => {
  const state = configFile('half a st')
  const broken = agent('-platform', 'file', '-stage', 'files', '-state-file', state)
  expect(broken.status).toBe(3)
  expect(broken.stderr.trimEnd().split('\n').at(-1)).toMatch(
    /^kiln-ignition: files: STATE_INVALID: .*holds no state of an earlier stage.*Delete it/,
  )
  const blind = agent('-platform', 'metal', '-stage', 'fetch', '-cmdline', '/nonexistent/cmdline')
  expect(blind.status).toBe(3)
  expect(blind.stderr).toMatch(/^kiln-ignition: no stage can begin: .*\/nonexistent\/cmdline/)
})

test('a simulation that cannot begin says why, without a stack', () => {
  const config = configFile('{"ignition": {"version": "3.4.0"}}')
  const missing = agent('simulate', config, '--disk', '/nonexistent/disk.img')
  expect(missing).toMatchObject({ status: 2, stdout: '' })
  expect(missing.stderr).toMatch(/^kiln-ignition: USAGE: there is no image \/nonexistent\/disk.img\n$/)
})

test('the stages run one by one in processes of their own', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-ignition-'))
  const config = configFile(
    '{"ignition": {"version": "3.4.0"}, "storage": {"files": [{"path": "/etc/motd", "contents": {"source": "data:,hi"}}]}}',
  )
  const flags = ['--platform', 'file', '--config', config, '--root', join(folder, 'root')]
  const state = ['--config-cache', join(folder, 'cache'), '--state-file', join(folder, 'state')]
  const network = ['--neednet', join(folder, 'neednet')]
  for (const stage of ['fetch-offline', 'fetch', 'kargs', 'disks', 'mount', 'files', 'umount']) {
    const { status, stderr } = agent('-stage', stage, ...flags, ...state, ...network)
    expect(`${stage} ${status} ${stderr.includes('kiln-ignition:')}`).toBe(`${stage} 0 false`)
  }
})
