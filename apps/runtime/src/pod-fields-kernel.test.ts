import { existsSync, mkdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'vitest'
import { logOf, newFolder, onHost, podFolder, runtime, shellPod, until } from './testing/host-runtime.ts'

const usr = { name: 'usr', hostPath: { path: '/usr' } }
const usrMount = { name: 'usr', mountPath: '/usr', readOnly: true }
const once = { restartPolicy: 'Never' }

/** Runs a script to its end as root of a container; what it has written. */
async function output(
  script: string,
  more: object = {},
  inContainer: object = {},
  files: Record<string, string> = {},
): Promise<string> {
  const folder = newFolder()
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true })
    writeFileSync(join(folder, path), text)
  }
  const manager = await runtime(folder)
  const security = { securityContext: { runAsUser: 0, runAsGroup: 0 } }
  await manager.run(shellPod(`exec 2>&1; ${script}`, { ...once, ...more }, { ...security, ...inContainer }))
  await until(manager, (status) => status?.phase === 'Succeeded' || status?.phase === 'Failed')
  return logOf(folder).replace(/^\S+ \S+ F /gm, '')
}

const byDefault = { securityContext: { seccompProfile: { type: 'RuntimeDefault' } } }
const calls = 'unshare -m true || echo no-unshare; mkdir /d && echo made; grep Seccomp: /proc/self/status'

onHost(
  'the default profile keeps a container from what only the machine does; without a profile nothing does',
  async () => {
    const kept = await output(calls, byDefault)
    expect(kept).toMatch(/Operation not permitted\nno-unshare\nmade\nSeccomp:\t2\n$/)
    const unconfined = { securityContext: { runAsUser: 0, seccompProfile: { type: 'Unconfined' } } }
    expect(await output(calls, byDefault, unconfined)).toMatch(/made\nSeccomp:\t0\n$/)
    expect(await output(calls)).toMatch(/made\nSeccomp:\t0\n$/)
  },
)

onHost('a profile of the machine is used, and one that is not there starts nothing', async () => {
  const profile = {
    defaultAction: 'SCMP_ACT_ALLOW',
    syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }],
  }
  const asked = {
    securityContext: {
      seccompProfile: { type: 'Localhost', localhostProfile: 'own/no-mkdir.json' },
      runAsUser: 0,
    },
  }
  const files = { 'seccomp/own/no-mkdir.json': JSON.stringify(profile) }
  expect(await output(calls, asked, {}, files)).toMatch(/No space left on device\nSeccomp:\t2\n$/)
  const manager = await runtime(newFolder())
  await manager.run(shellPod('true', asked))
  const status = await until(manager, (each) => each?.code !== undefined)
  expect(status).toMatchObject({
    code: 'POD_SECCOMP_INVALID',
    message: expect.stringContaining('no-mkdir.json'),
  })
})

onHost('a program that enters a container has its profile too', async () => {
  const manager = await runtime(newFolder())
  const probe = { exec: { command: ['sh', '-c', '! unshare -m true'] }, periodSeconds: 1, timeoutSeconds: 20 }
  await manager.run(
    shellPod(
      'sleep 1000',
      {},
      { readinessProbe: probe, securityContext: { runAsUser: 0, ...byDefault.securityContext } },
    ),
  )
  await until(manager, (status) => status?.ready === true)
})

onHost('kernel parameters are those of the pod alone', async () => {
  const sysctls = [
    { name: 'net.ipv4.ip_unprivileged_port_start', value: '81' },
    { name: 'kernel.shm_rmid_forced', value: '1' },
  ]
  const files = ['net/ipv4/ip_unprivileged_port_start', 'kernel/shm_rmid_forced'].map(
    (name) => `/proc/sys/${name}`,
  )
  const before = files.map((file) => readFileSync(file, 'utf8'))
  expect(await output(`cat ${files.join(' ')}`, { securityContext: { sysctls } })).toBe('81\n1\n')
  expect(files.map((file) => readFileSync(file, 'utf8'))).toEqual(before)
})

onHost('namespaces of the machine are shared when the pod says so', async () => {
  const script = 'readlink /proc/self/ns/ipc /proc/self/ns/pid /proc/self/ns/net'
  const ours = (kind: string): string => readlinkSync(`/proc/self/ns/${kind}`)
  const [ipc, pid, net] = (await output(script, { hostIPC: true, hostPID: true })).split('\n')
  expect([ipc, pid]).toEqual([ours('ipc'), ours('pid')])
  expect(net).not.toBe(ours('net'))
  const own = await output(script)
  for (const kind of ['ipc', 'pid', 'net']) expect(own).not.toContain(ours(kind))
})

onHost('a volume has the group of the pod, and names of hosts and servers are those it gives', async () => {
  const written = await output(
    'id -G; touch /v/f; stat -c "%g %a" /v /v/f; cat /etc/hosts /etc/resolv.conf',
    {
      securityContext: { fsGroup: 4711, supplementalGroups: [4712] },
      volumes: [usr, { name: 'v', emptyDir: {} }],
      hostAliases: [{ ip: '10.1.2.3', hostnames: ['db', 'db.example'] }],
      dnsPolicy: 'None',
      dnsConfig: {
        nameservers: ['10.9.9.9'],
        searches: ['example.org'],
        options: [{ name: 'ndots', value: '2' }],
      },
    },
    { volumeMounts: [usrMount, { name: 'v', mountPath: '/v' }] },
  )
  expect(written).toMatch(/^(?=.*\b4711\b)(?=.*\b4712\b).*\n4711 2777\n4711 644\n/)
  expect(written).toContain('10.1.2.3\tdb\tdb.example\n')
  expect(written).toMatch(/nameserver 10\.9\.9\.9\nsearch example\.org\noptions ndots:2\n$/)
})

onHost('a config map is read from the machine, with its modes, and cannot be written', async () => {
  const configMap = {
    name: 'web',
    items: [
      { key: 'conf', path: 'etc/web.conf', mode: 0o600 },
      { key: 'page', path: 'p' },
    ],
  }
  const written = await output(
    'cat /c/etc/web.conf /c/p; stat -c %a /c/etc/web.conf /c/p; echo x > /c/p || echo refused',
    { volumes: [usr, { name: 'c', configMap }] },
    { volumeMounts: [usrMount, { name: 'c', mountPath: '/c' }] },
    { 'config-maps/web/conf': 'a=1\n', 'config-maps/web/page': 'hello\n', 'config-maps/web/other': '' },
  )
  expect(written).toMatch(/^a=1\nhello\n600\n644\n.*Read-only file system\nrefused\n$/)
  const manager = await runtime(newFolder())
  await manager.run(shellPod('true', { volumes: [usr, { name: 'c', configMap: { name: 'none' } }] }))
  const status = await until(manager, (each) => each?.code !== undefined)
  expect(status?.code).toBe('POD_CONFIG_MAP_MISSING')
})

const attacked = (part: string) => ({
  volumes: [usr, { name: 'v', emptyDir: {} }],
  initContainers: [
    shellPod(
      `mkdir /v/real; ln -s / /v/all; ln -s /etc /v/real/etc; echo inside > /v/real/file`,
      {
        volumes: [usr, { name: 'v', emptyDir: {} }],
      },
      {
        name: 'attacker',
        securityContext: { runAsUser: 0 },
        volumeMounts: [usrMount, { name: 'v', mountPath: '/v' }],
      },
    ).spec.containers[0],
  ],
  part,
})

onHost('a part of a volume is mounted, and a symlink in it leads nowhere', async () => {
  const { part: _, ...pod } = attacked('')
  const mount = (subPath: string) => ({ volumeMounts: [usrMount, { name: 'v', mountPath: '/m', subPath }] })
  expect(await output('cat /m/file', pod, mount('real'))).toBe('inside\n')
  expect(await output('cat /m', pod, mount('real/file'))).toBe('inside\n')
  expect(await output('touch /m/x && stat -c %a /m', pod, mount('made/here'))).toBe('777\n')
  for (const attack of ['all', 'all/etc', 'real/etc', 'real/etc/passwd']) {
    const folder = newFolder()
    const manager = await runtime(folder)
    await manager.run(shellPod('cat /m/shadow /m', pod, mount(attack)))
    const status = await until(manager, (each) => each?.code !== undefined)
    expect([attack, status?.code]).toEqual([attack, 'POD_SUBPATH_REFUSED'])
    expect(logOf(folder)).toBe('')
  }
})

onHost('the last word of a container is in its status', async () => {
  const folder = newFolder()
  const manager = await runtime(folder)
  await manager.run(
    shellPod('echo disk is gone > /dev/termination-log; exit 3', once, {
      terminationMessagePath: '/dev/termination-log',
    }),
  )
  const status = await until(manager, (each) => each?.phase === 'Failed')
  expect(status?.containers[0]?.lastExit).toMatchObject({ code: 3, message: 'disk is gone\n' })
  expect(existsSync(join(podFolder(folder), 'c-main/termination-message'))).toBe(true)
  expect(statSync(join(podFolder(folder), 'c-main/termination-message')).mode & 0o777).toBe(0o666)
})
