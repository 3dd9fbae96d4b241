import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'

if (unable) console.log(`skipped: containers of kiln-oci on this host: ${unable}`)
const onHost = test.skipIf(unable !== undefined)

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
}, 120_000)

const state = (id: string): { status: string; pid: number } => JSON.parse(host.oci(['state', id]).out)

async function stopped(id: string): Promise<void> {
  for (let tries = 0; state(id).status !== 'stopped'; tries++) {
    if (tries > 200) throw new Error(`${id} does not stop`)
    await sleep(20)
  }
}

onHost('a container goes from created to running to stopped to nothing', async () => {
  const { oci, bundle, base, root } = host
  const folder = bundle('echo up >/tmp/up; exec sleep 100')
  expect(oci(['create', '--bundle', folder, '--pid-file', join(folder, 'pid'), 'life']).err).toBe('')
  expect(state('life').status).toBe('created')
  expect(Number(readFileSync(join(folder, 'pid'), 'utf8'))).toBe(state('life').pid)
  expect(existsSync(join(folder, 'rootfs/tmp/up'))).toBe(false)
  expect(oci(['delete', 'life']).code).toBe(1)
  expect(oci(['start', 'life']).code).toBe(0)
  expect(oci(['start', 'life']).err).toContain('cannot start a running container')
  expect(state('life').status).toBe('running')
  expect(
    oci([
      'exec',
      'life',
      '/bin/sh',
      '-c',
      'while [ ! -s /tmp/up ]; do sleep 0.1; done; echo in $(cat /tmp/up); exit 7',
    ]),
  ).toEqual({
    code: 7,
    out: 'in up\n',
    err: '',
  })
  expect(JSON.parse(oci(['list', '--format', 'json']).out)[0]).toMatchObject({
    id: 'life',
    status: 'running',
  })
  expect(oci(['kill', 'life', 'NOPE']).code).toBe(1)
  expect(oci(['kill', 'life', 'KILL']).code).toBe(0)
  await stopped('life')
  expect(state('life').pid).toBe(0)
  expect(oci(['kill', 'life', 'KILL']).code).toBe(1)
  expect(oci(['delete', 'life']).code).toBe(0)
  expect(oci(['state', 'life']).code).toBe(1)
  expect(leftovers(base, root, 'life')).toEqual([])
})

onHost('run passes streams and exit code, and leaves nothing', () => {
  const { oci, bundle, base, root } = host
  const done = oci(['run', '--bundle', bundle('cat; echo err >&2; exit 42'), 'once'], { input: 'hello' })
  expect(done).toEqual({ code: 42, out: 'hello', err: 'err\n' })
  expect(oci(['run', '--bundle', bundle("sh -c 'kill -9 $$'; exit $?"), 'killed']).code).toBe(137)
  expect(leftovers(base, root, 'once')).toEqual([])
})

onHost('what cannot be made says why, in the log too, and leaves nothing', () => {
  const { oci, bundle, base, root } = host
  const cases: [string, ReturnType<typeof bundle>][] = [
    ['No such file or directory', bundle('', { process: { args: ['/no/such/program'] } })],
    [
      '/no/such/source',
      bundle('', { mounts: [{ destination: '/mnt', type: 'bind', source: '/no/such/source' }] }),
    ],
    ['mount /mnt', bundle('', { mounts: [{ destination: '/mnt', type: 'nosuchfs', source: 'x' }] })],
    ['createRuntime', bundle('', { hooks: { createRuntime: [{ path: '/bin/false' }] } })],
    ['belongs to the whole host', bundle('', { linux: { sysctl: { 'kernel.panic': '1' } } })],
  ]
  const log = join(base, 'log')
  for (const [message, folder] of cases) {
    const done = oci(['--log', log, '--log-format', 'json', 'create', '--bundle', folder, 'bad'])
    expect(done.code).not.toBe(0)
    expect(done.err).toContain(message)
    const last = readFileSync(log, 'utf8').trim().split('\n').at(-1)!
    expect(JSON.parse(last)).toMatchObject({ level: 'error' })
    expect(leftovers(base, root, 'bad')).toEqual([])
  }
})

onHost('hooks run in their order and namespaces, with the state on stdin', async () => {
  const { oci, bundle } = host
  const folder = bundle('echo main >>/tmp/order; exec sleep 100')
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
  const hook = (name: string, file = join(folder, 'order')) => [
    { path: '/bin/sh', args: ['sh', '-c', `cat >${file}.${name}; echo ${name} >>${file}`] },
  ]
  config.hooks = {
    createContainer: hook('createContainer'),
    createRuntime: hook('createRuntime'),
    poststart: hook('poststart'),
    poststop: hook('poststop'),
    prestart: hook('prestart'),
    startContainer: hook('startContainer', '/tmp/order'),
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  expect(oci(['create', '--bundle', folder, 'hooks']).err).toBe('')
  expect(oci(['start', 'hooks']).err).toBe('')
  await sleep(200)
  expect(readFileSync(join(folder, 'rootfs/tmp/order'), 'utf8')).toBe('startContainer\nmain\n')
  oci(['delete', '--force', 'hooks'])
  const order = readFileSync(join(folder, 'order'), 'utf8').trim().split('\n')
  expect(order).toEqual(['prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop'])
  const status = (name: string) => JSON.parse(readFileSync(join(folder, `order.${name}`), 'utf8')).status
  expect(['createRuntime', 'poststart', 'poststop'].map(status)).toEqual(['creating', 'running', 'stopped'])
})

onHost('HOME is that of the container\u2019s user, unless the document says one', () => {
  const { oci, bundle } = host
  const home = (passwd: string | undefined, process: Record<string, unknown>): string => {
    const folder = bundle('echo $HOME', { process })
    if (passwd !== undefined) writeFileSync(join(folder, 'rootfs/etc/passwd'), passwd)
    return oci(['run', '--bundle', folder, 'home']).out.trim()
  }
  const users = 'root:x:0:0::/root:/bin/sh\nweb:x:7:7::/srv/web:/bin/sh\n'
  expect(home(users, {})).toBe('/root')
  expect(home(users, { user: { uid: 7, gid: 7 } })).toBe('/srv/web')
  expect(home(users, { user: { uid: 8, gid: 8 } })).toBe('/')
  expect(home(undefined, {})).toBe('/')
  expect(home(users, { env: ['PATH=/bin', 'HOME=/other'] })).toBe('/other')
  // A container whose users are no file is not waited for.
  const folder = bundle('echo $HOME')
  execFileSync('mkfifo', [join(folder, 'rootfs/etc/passwd')])
  expect(oci(['run', '--bundle', folder, 'home']).out.trim()).toBe('/')
})

onHost('a hook without an environment has the caller\u2019s, and --config names another document', () => {
  const { oci, bundle, base } = host
  const folder = bundle('exit 3')
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
  const told = join(folder, 'told')
  const hook = { path: '/bin/sh', args: ['sh', '-c', `echo "$KILN_TEST $OWN" >>${told}`] }
  config.hooks = { createRuntime: [hook, { ...hook, env: ['OWN=yes'] }] }
  const other = join(base, 'other.json')
  writeFileSync(other, JSON.stringify(config))
  rmSync(join(folder, 'config.json'))
  const env = { KILN_TEST: 'here' }
  expect(oci(['run', '--bundle', folder, '--config', other, 'configured'], { env }).code).toBe(3)
  expect(readFileSync(told, 'utf8')).toBe('here \n yes\n')
  expect(oci(['run', '--bundle', folder, 'configured']).err).toContain('config.json')
})

onHost('a mount on a symlink that leads to nothing makes its place, within the root', () => {
  const { oci, bundle, base } = host
  const source = join(base, 'resolv')
  writeFileSync(source, 'found\n')
  const links: Record<string, string> = {
    '/etc/relative': '../run/here/file',
    '/etc/absolute': '/run/there/file',
    '/etc/above': '../../../../../run/above/file',
    '/etc/second': 'relative-to-it',
    '/etc/relative-to-it': '/run/second/file',
    '/etc/folder': '/run/folder',
  }
  const mount = (destination: string, from: string) => ({ destination, source: from, options: ['bind'] })
  const files = Object.keys(links).filter((name) => !/folder|relative-to/.test(name))
  const mounts = [...files.map((name) => mount(name, source)), mount('/etc/folder', '/usr')]
  const folder = bundle(`cat ${files.join(' ')}; test -d /etc/folder/bin && echo folder`, { mounts })
  for (const [name, to] of Object.entries(links)) symlinkSync(to, join(folder, 'rootfs', name))
  expect(oci(['run', '--bundle', folder, 'dangling'])).toEqual({
    code: 0,
    out: `${'found\n'.repeat(files.length)}folder\n`,
    err: '',
  })
  expect(existsSync('/run/there')).toBe(false)
  // A circle leads nowhere, and is refused.
  const circle = bundle('true', { mounts: [mount('/etc/a', source)] })
  symlinkSync('b', join(circle, 'rootfs/etc/a'))
  symlinkSync('a', join(circle, 'rootfs/etc/b'))
  expect(oci(['run', '--bundle', circle, 'dangling']).err).toContain('Too many levels of symbolic links')
})

onHost('what was killed can be deleted at once', () => {
  const { execute, oci, bundle, command, root } = host
  const folder = bundle('sleep 100')
  // In one shell, so that nothing is between the two.
  const both = `"$0" --root "$1" kill once KILL && "$0" --root "$1" delete once`
  for (let turn = 0; turn < 15; turn++) {
    expect(oci(['create', '--bundle', folder, 'once']).err).toBe('')
    if (turn > 0) expect(oci(['start', 'once']).err).toBe('')
    expect(execute('/bin/sh', ['-c', both, command, root])).toEqual({ code: 0, out: '', err: '' })
  }
})

onHost('list is in the order of names, with names of owners', () => {
  const { oci, bundle } = host
  const folder = bundle('sleep 100')
  const ids = ['zz', 'aa', 'mm']
  for (const id of ids) expect(oci(['create', '--bundle', folder, id]).err).toBe('')
  const lines = oci(['list']).out.trimEnd().split('\n')
  const listed = JSON.parse(oci(['list', '--format', 'json']).out) as { id: string; owner: string }[]
  expect(oci(['list', '--quiet']).out).toBe('aa\nmm\nzz\n')
  for (const id of ids) oci(['delete', '--force', id])
  expect(lines.map((line) => line.split(/ +/)[0])).toEqual(['ID', 'aa', 'mm', 'zz'])
  expect(lines[1]).toMatch(/^aa +\d+ +created +\S+ +\d{4}-\d\d-\d\dT[\d:.]+Z +root$/)
  expect(listed.map(({ id, owner }) => `${id} ${owner}`)).toEqual(['aa root', 'mm root', 'zz root'])
})

onHost('a terminal of its own: run joins it with ours', () => {
  const { oci, bundle } = host
  const mounts = [
    { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
  ]
  const folder = bundle('tty; stty size', {
    mounts,
    process: { terminal: true, consoleSize: { height: 33, width: 99 } },
  })
  const { code, out } = oci(['run', '--bundle', folder, 'tty'])
  expect({ code, out: out.replaceAll('\r', '') }).toEqual({ code: 0, out: '/dev/pts/0\n33 99\n' })
})

onHost('a new user namespace has its own root, and devices come from the host', () => {
  const { oci, bundle, base } = host
  const map = [{ containerID: 0, hostID: 100000, size: 1000 }]
  const namespaces = ['pid', 'mount', 'network', 'ipc', 'uts', 'user'].map((type) => ({ type }))
  const folder = bundle(
    'id -u; cat /proc/self/uid_map | tr -s " "; head -c 3 /dev/zero | wc -c; echo x >/dev/null && echo w',
    {
      linux: { namespaces, uidMappings: map, gidMappings: map },
    },
  )
  // The mapped root must reach the tree, and own it.
  chmodSync(base, 0o755)
  execFileSync('chown', ['-R', '100000:100000', join(folder, 'rootfs')])
  const { code, out, err } = oci(['run', '--bundle', folder, 'user'])
  expect({ code, err, out }).toEqual({ code: 0, err: '', out: '0\n 0 100000 1000\n3\nw\n' })
})
