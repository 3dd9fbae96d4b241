import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'

/** The front itself: its flags, its folder, and what it does when the planner or the question fails. */
if (unable) console.log(`skipped: the front of kiln-oci on this host: ${unable}`)
const onHost = test.skipIf(unable !== undefined)
const someone = 42_424

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
  chmodSync(host.base, 0o755)
}, 120_000)

type Config = { mounts: { destination: string; source?: string }[]; [name: string]: unknown }
function change(folder: string, edit: (config: Config) => void): string {
  const file = join(folder, 'config.json')
  const config = JSON.parse(readFileSync(file, 'utf8'))
  edit(config)
  writeFileSync(file, JSON.stringify(config))
  return folder
}

onHost('a planner that hangs is ended at its deadline, and nothing is left', () => {
  const { base, root, execute, command, bundle } = host
  const place = join(base, 'hangs')
  for (const name of ['bin', 'lib']) mkdirSync(join(place, name), { recursive: true })
  copyFileSync(command, join(place, 'bin/kiln-oci'))
  symlinkSync(join(base, 'lib/kiln-oci.mjs'), join(place, 'lib/kiln-oci.mjs'))
  writeFileSync(join(place, 'lib/node'), `#!/bin/sh\necho $$ >${place}/pid\nexec sleep 1000\n`, {
    mode: 0o755,
  })
  const started = Date.now()
  const create = ['--root', root, 'create', '--bundle', bundle('true'), 'hangs']
  const done = execute(join(place, 'bin/kiln-oci'), create, { env: { KILN_OCI_PLANNER_SECONDS: '1' } })
  expect(done).toEqual({ code: 1, out: '', err: 'kiln-oci: the planner did not answer in 1 s\n' })
  expect(Date.now() - started).toBeLessThan(15_000)
  expect(existsSync(`/proc/${readFileSync(join(place, 'pid'), 'utf8').trim()}`)).toBe(false)
  expect(existsSync(join(root, 'hangs'))).toBe(false)
  const odd = execute(join(place, 'bin/kiln-oci'), create, { env: { KILN_OCI_PLANNER_SECONDS: '0' } })
  expect(odd.err).toContain('KILN_OCI_PLANNER_SECONDS')
})

onHost(
  'a question that cannot be written whole is not asked, and no container runs from an open file',
  () => {
    const { root, command, execute, bundle } = host
    const folder = change(bundle('true'), (config) => {
      config['annotations'] = { long: 'x'.repeat(3_500_000) }
    })
    const limited = (kib: number) =>
      execute('bash', [
        '-c',
        `trap '' XFSZ; ulimit -f ${kib}; exec ${command} --root ${root} create --bundle ${folder} cut`,
      ])
    expect(limited(2048)).toMatchObject({
      code: 1,
      err: 'kiln-oci: write the question to the planner: File too large\n',
    })
    expect(limited(64)).toMatchObject({ code: 1, err: 'kiln-oci: run from a sealed copy: File too large\n' })
  },
)

onHost('a flag that means nothing here is refused', () => {
  const { oci } = host
  const cases: [string[], string][] = [
    [['--criu', '/usr/sbin/criu'], 'there is no CRIU here'],
    [['--cgroup-manager', 'disabled'], '--cgroup-manager: unknown value "disabled"'],
    [['--rootless', 'maybe'], '--rootless: unknown value "maybe"'],
    [['--root', ''], '--root: unknown value ""'],
    [['--log-format=xml'], '--log-format: unknown value "xml"'],
    [['--no-such'], 'unknown flag --no-such'],
  ]
  for (const [flags, message] of cases) {
    const done = oci([...flags, 'list'])
    expect(done.code, message).toBe(1)
    expect(done.err).toContain(message)
  }
  expect(oci(['--rootless', 'auto', '--cgroup-manager', 'cgroupfs', 'list', '--quiet'])).toEqual({
    code: 0,
    out: '',
    err: '',
  })
})

onHost('a caller who is not root keeps state in a folder of its own, or is told to name one', () => {
  const { base, command, execute } = host
  const own = join(base, 'own')
  mkdirSync(own)
  execFileSync('chown', [String(someone), own])
  const env = { XDG_RUNTIME_DIR: undefined }
  const list = (args: string[], more: Record<string, string | undefined> = {}) =>
    execute(command, [...args, 'state', 'none'], { id: someone, env: { ...env, ...more } })
  const nowhere = 'there is no folder for the state: set XDG_RUNTIME_DIR or --root'
  expect(list([]).err).toContain(nowhere)
  expect(list(['--rootless', 'true'], { XDG_RUNTIME_DIR: 'relative' }).err).toContain(nowhere)
  expect(list([], { XDG_RUNTIME_DIR: own }).err).toContain('container none does not exist')
  // Not rootless is the machine's folder, whoever asks.
  expect(list(['--rootless=false']).err).toContain('container none does not exist')
})

onHost('a caller who is not root runs a container as the root of its own user namespace', () => {
  const { base, command, execute, bundle } = host
  const own = join(base, 'runtime')
  mkdirSync(own, { recursive: true })
  const map = [{ containerID: 0, hostID: someone, size: 1 }]
  const namespaces = ['pid', 'mount', 'ipc', 'uts', 'user'].map((type) => ({ type }))
  const linux = { namespaces, uidMappings: map, gidMappings: map }
  // This host's /proc may have mounts on it, which a new one in a user namespace would uncover: it is bound.
  const folder = change(bundle('id -u; [ -c /dev/null ] && echo device', { linux }), (config) => {
    for (const mount of config.mounts) {
      if (mount.destination === '/proc')
        Object.assign(mount, { type: 'bind', source: '/proc', options: ['rbind'] })
    }
  })
  execFileSync('chown', ['-R', `${someone}:${someone}`, own, folder])
  const run = (config: string, ...flags: string[]) =>
    execute(command, [...flags, 'run', '--bundle', config, 'mine'], {
      id: someone,
      env: { XDG_RUNTIME_DIR: own },
    })
  expect(run(folder)).toEqual({ code: 0, out: '0\ndevice\n', err: '' })
  expect(readdirSync(join(own, 'kiln-oci'))).toEqual([])
  expect(run(folder, '--rootless=false').err).toMatch(/cgroup|\/run\/kiln-oci/)
  const nowhere = change(bundle('true', { linux }), (config) => {
    config.mounts[0]!.source = '/no/such/source'
  })
  const failed = run(nowhere)
  expect(failed.code).not.toBe(0)
  expect(failed.err).toContain('open mount source /no/such/source: No such file')
  expect(readdirSync(join(own, 'kiln-oci'))).toEqual([])
  const limited = bundle('true', { linux: { ...linux, resources: { pids: { limit: 5 } } } })
  execFileSync('chown', ['-R', `${someone}:${someone}`, limited])
  expect(run(limited).err).toContain('set cgroup limit')
  expect(readdirSync(join(own, 'kiln-oci'))).toEqual([])
})

onHost('warnings and, with --debug, what happened are in the log', () => {
  const { base, oci, bundle } = host
  const capabilities = { bounding: ['CAP_KILL', 'CAP_OF_TOMORROW'] }
  const folder = bundle('true', { process: { capabilities } })
  expect(oci(['run', '--bundle', folder, 'warned'])).toEqual({
    code: 0,
    out: '',
    err: 'kiln-oci: warning: unknown capabilities are left out: "CAP_OF_TOMORROW"\n',
  })
  const log = join(base, 'remarks')
  const logged = (...flags: string[]) => {
    writeFileSync(log, '')
    expect(
      oci([...flags, '--log', log, '--log-format', 'json', 'run', '--bundle', folder, 'warned']),
    ).toEqual({
      code: 0,
      out: '',
      err: '',
    })
    const lines = readFileSync(log, 'utf8').trim().split('\n')
    return lines.map((line) => JSON.parse(line).level)
  }
  expect(logged()).toEqual(['warning'])
  expect(logged('--debug')).toEqual(['warning', 'debug'])
})

onHost('descriptors that are to be kept arrive, and no others', () => {
  const { base, root, command, execute, bundle } = host
  const file = join(base, 'kept')
  writeFileSync(file, 'kept\n')
  const folder = bundle(
    'cat <&3; echo "$LISTEN_FDS $LISTEN_PID"; for n in 0 1 2 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo -n $n; done',
  )
  const run = (before: string, flags: string) =>
    execute('bash', [
      '-c',
      `${before} exec ${command} --root ${root} run ${flags} --bundle ${folder} kept 3<${file} 4<${file}`,
    ]).out
  expect(run('', '--preserve-fds 1')).toBe('kept\n \n0123')
  expect(run('LISTEN_FDS=1 LISTEN_PID=$$', '')).toBe('kept\n1 1\n0123')
  expect(run('LISTEN_FDS=1 LISTEN_PID=1', '')).toBe(' \n012')
  expect(leftovers(base, root, 'kept')).toEqual([])
})
