import { chmodSync, existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { folderName } from './attachments.ts'
import { endPlugins } from './leftovers.ts'
import { openPlugins } from './plugin.ts'
import { openCniNetworks } from './pod-networks.ts'

/** A plug-in that is a shell script. */
function plugin(script: string): { folder: string; type: string } {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-plugin-'))
  writeFileSync(join(folder, 'fake'), `#!/bin/sh\n${script}\n`)
  chmodSync(join(folder, 'fake'), 0o755)
  return { folder, type: 'fake' }
}

const run = (script: string, timeoutMs = 30_000): Promise<unknown> => {
  const { folder, type } = plugin(script)
  const call = { command: 'ADD', containerId: 'c1', netns: '/n', interfaceName: 'eth0', args: 'A=b' } as const
  return openPlugins({ path: `/nonexistent:${folder}`, timeoutMs }).run(type, call, { name: 'net' })
}

test('a plug-in is told by its environment and standard input, and knows nothing else', async () => {
  const script = `printf '{"env":"%s","input":%s}' "$(env | grep -v -E '^(PWD|SHLVL|_|OLDPWD)=' | sort | tr '\\n' ' ')" "$(cat)"`
  const answer = (await run(script)) as { env: string; input: object }
  expect(answer.input).toEqual({ name: 'net' })
  expect(answer.env.split(' ').map((entry) => entry.replace(/(CNI_PATH)=.*/, '$1'))).toEqual([
    'CNI_ARGS=A=b',
    'CNI_COMMAND=ADD',
    'CNI_CONTAINERID=c1',
    'CNI_IFNAME=eth0',
    'CNI_NETNS=/n',
    'CNI_PATH',
    'PATH=/usr/sbin:/usr/bin:/sbin:/bin',
    '',
  ])
})

test('a failure has the words of the plug-in, as it should say them or else as it does', async () => {
  const said = `echo '{"cniVersion":"1.0.0","code":11,"msg":"try again","details":"busy"}'; exit 1`
  await expect(run(said)).rejects.toMatchObject({
    code: 'CNI_PLUGIN_FAILED',
    message: 'plug-in fake, ADD: try again: busy (code 11)',
  })
  await expect(run('echo panic >&2; exit 2')).rejects.toThrow('plug-in fake, ADD: panic')
  await expect(run('exit 3')).rejects.toThrow('it said nothing and ended with 3')
  await expect(run('kill -9 $$')).rejects.toThrow('it said nothing and ended with SIGKILL')
})

test('what is no JSON, or too much, is refused', async () => {
  await expect(run('echo hello')).rejects.toMatchObject({ code: 'CNI_ANSWER_INVALID' })
  await expect(run('yes')).rejects.toMatchObject({ code: 'CNI_ANSWER_INVALID' })
})

test('a plug-in that hangs is ended with what it started', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-plugin-'))
  const mark = join(folder, 'mark')
  await expect(run(`(sleep 1; touch ${mark}) & sleep 60`, 200)).rejects.toMatchObject({
    code: 'CNI_PLUGIN_TIMED_OUT',
  })
  await sleep(1300)
  expect(existsSync(mark)).toBe(false)
})

test('plug-ins of a container are found and ended, whoever started them', async () => {
  const { folder } = plugin('sleep 60 & wait')
  const other = openPlugins({ path: folder, timeoutMs: 30_000 })
  const call = { command: 'ADD', containerId: `of-${process.pid}` } as const
  const running = expect(other.run('fake', call, {})).rejects.toThrow('SIGKILL')
  await sleep(200)
  await endPlugins(call.containerId)
  await running
})

test('a network that its plug-ins never take is tried to be undone for a bounded time', async () => {
  const { folder } = plugin(
    `[ "$CNI_COMMAND" = VERSION ] && echo '{"supportedVersions":["1.0.0"]}' && exit; exit 1`,
  )
  const attachmentsDir = join(folder, 'attachments')
  const networks = openCniNetworks({
    configDir: '/nonexistent',
    bundled: [{ cniVersion: '1.0.0', name: 'net', plugins: [{ type: 'fake' }] }],
    attachmentsDir,
    bootId: 'boot1',
    plugins: openPlugins({ path: folder, timeoutMs: 30_000 }),
    run: async () => '',
    log: createLog('test', 'silent'),
  })
  const gone = { pid: 999_999_999, startTime: '1' }
  const pod = { uid: 'u', name: 'p', namespace: 'default', generation: 1, sandbox: gone, ports: [] }
  await expect(networks.connect({ ...pod, networks: [{ name: 'net', interface: 'eth0' }] })).rejects.toThrow(
    'fake, ADD',
  )
  const file = join(attachmentsDir, folderName('u'), 'p-0bfe935e70c3-1.0.json')
  expect(existsSync(file)).toBe(true)
  for (let round = 0; round < 8; round++) await networks.collect(new Set())
  expect(existsSync(file)).toBe(true)
  const left = await networks.collect(new Set())
  expect(left).toMatchObject([{ pod: 'p', network: 'net', message: expect.stringContaining('fake, DEL') }])
  expect(existsSync(file)).toBe(false)
})
