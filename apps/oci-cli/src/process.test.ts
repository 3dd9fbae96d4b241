import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { prepare, unable } from './testing/bundle.ts'

/** What a process of a container is given beyond its program: its schedule, its place, who may watch it. */
if (unable) console.log(`skipped: processes of kiln-oci on this host: ${unable}`)
const onHost = test.skipIf(unable !== undefined)
const python = existsSync('/usr/bin/python3')
if (!python) console.log('skipped: --pidfd-socket: there is no python3 to receive a descriptor')

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
}, 120_000)

const capabilities = { bounding: ['CAP_KILL'], effective: ['CAP_KILL'], permitted: ['CAP_KILL'] }

onHost('schedule, class of I/O, personality and time are those of the document', () => {
  const { oci, bundle } = host
  const namespaces = ['pid', 'mount', 'network', 'ipc', 'uts', 'time'].map((type) => ({ type }))
  const folder = bundle('cut -d" " -f19,41 /proc/self/stat; ionice; uname -m; cut -d. -f1 /proc/uptime', {
    process: {
      capabilities,
      scheduler: { policy: 'SCHED_BATCH', nice: 5 },
      ioPriority: { class: 'IOPRIO_CLASS_BE', priority: 6 },
    },
    linux: { namespaces, personality: { domain: 'LINUX32' }, timeOffsets: { boottime: { secs: 9_000_000 } } },
  })
  const [stat, io, machine, uptime] = oci(['run', '--bundle', folder, 'schedule']).out.split('\n')
  expect([stat, io]).toEqual(['5 3', 'best-effort: prio 6'])
  expect(['i686', 'armv8l']).toContain(machine)
  expect(Number(uptime)).toBeGreaterThan(9_000_000)
  const rare = bundle('true', { process: { scheduler: { policy: 'SCHED_FIFO', priority: 0 } } })
  const refused = oci(['run', '--bundle', rare, 'schedule'])
  expect(refused.code).not.toBe(0)
  expect(refused.err).toContain('sched_setattr')
})

onHost('exec that fails by itself ends with 255, and leaves no program', () => {
  const { oci, bundle, base } = host
  const folder = bundle('exec sleep 100')
  expect(oci(['create', '--bundle', folder, 'execs']).err).toBe('')
  expect(oci(['start', 'execs']).err).toBe('')
  const code = (...args: string[]) => oci(['exec', ...args]).code
  expect(code('execs', 'sh', '-c', 'exit 7')).toBe(7)
  expect(code('nobody', 'true')).toBe(255)
  expect(code('--cgroup', '../..', 'execs', 'true')).toBe(255)
  const pidFile = join(base, 'no/such/folder')
  const marker = join(folder, 'rootfs/tmp/ran')
  expect(code('--detach', '--pid-file', pidFile, 'execs', 'sh', '-c', 'sleep 1; echo >/tmp/ran')).toBe(255)
  oci(['pause', 'execs'])
  expect(code('execs', 'true')).toBe(255)
  oci(['resume', 'execs'])
  oci(['kill', 'execs', 'KILL'])
  execFileSync('sleep', ['1.5'])
  expect(code('execs', 'true')).toBe(255)
  expect(existsSync(marker)).toBe(false)
  expect(oci(['delete', 'execs']).code).toBe(0)
})

onHost('exec runs on the CPUs and in the group that it is told', () => {
  const { oci, bundle, base } = host
  const folder = bundle('exec sleep 100', { linux: undefined })
  expect(oci(['run', '--detach', '--bundle', folder, 'placed']).err).toBe('')
  const { pid } = JSON.parse(oci(['state', 'placed']).out) as { pid: number }
  const groups = readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')
  const of = groups.map((line) => line.split(':')).find(([, names]) => names === 'pids' || names === '')!
  const place = join('/sys/fs/cgroup', of[1]!, of[2]!, 'below')
  mkdirSync(place)
  try {
    const text = join(base, 'process.json')
    const program = {
      args: ['/bin/sh', '-c', 'grep Cpus_allowed_list /proc/self/status; cat /proc/self/cgroup'],
    }
    const user = { uid: 0, gid: 0 }
    const affinity = { execCPUAffinity: { initial: '0', final: '0' } }
    writeFileSync(text, JSON.stringify({ ...program, cwd: '/', env: ['PATH=/bin'], user, ...affinity }))
    const { out, err } = oci([
      'exec',
      '--process',
      text,
      '--cgroup',
      `${of[1]}:/below`.replace(/^:/, ''),
      'placed',
    ])
    expect(err).toBe('')
    expect(out).toContain('Cpus_allowed_list:\t0\n')
    expect(out.split('\n').filter((line) => line.endsWith('/below'))).toEqual([`${of.join(':')}/below`])
    expect(oci(['exec', '--cgroup', '/none', 'placed', '/bin/true']).err).toContain('enter cgroup')
    writeFileSync(
      text,
      JSON.stringify({ args: ['/bin/true'], cwd: '/', execCPUAffinity: { initial: '8000' } }),
    )
    expect(oci(['exec', '--process', text, 'placed']).err).toContain('set initial CPU affinity')
  } finally {
    oci(['delete', '--force', 'placed'])
    if (existsSync(place)) rmdirSync(place)
  }
})

test.skipIf(unable !== undefined || !python)(
  'a descriptor of the process goes to --pidfd-socket',
  async () => {
    const { oci, bundle, base } = host
    const socket = join(base, 'pidfd.sock')
    const script = [
      'import array, os, socket, sys',
      's = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(2); s.settimeout(30)',
      'for _ in range(2):',
      '  c, _ = s.accept(); text, control, _, _ = c.recvmsg(64, socket.CMSG_SPACE(4))',
      '  fd = array.array("i", control[0][2][:4])[0]',
      '  pid = [l.split()[1] for l in open(f"/proc/self/fdinfo/{fd}") if l.startswith("Pid:")][0]',
      '  print(text.decode(), pid, flush=True)',
    ].join('\n')
    const receiver = spawn('/usr/bin/python3', ['-c', script, socket], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    receiver.stdout.on('data', (text) => (said += text))
    try {
      for (let tries = 0; !existsSync(socket) && tries < 200; tries++) await sleep(50)
      expect(oci(['create', '--bundle', bundle('sleep 100'), '--pidfd-socket', socket, 'watched']).err).toBe(
        '',
      )
      const file = join(base, 'exec.pid')
      const exec = ['exec', '--detach', '--pid-file', file, '--pidfd-socket', socket, 'watched']
      expect(oci([...exec, '/bin/sleep', '50']).err).toBe('')
      const { pid } = JSON.parse(oci(['state', 'watched']).out) as { pid: number }
      for (let tries = 0; said.split('\n').length < 3 && tries < 200; tries++) await sleep(50)
      expect(said).toBe(`standard ${pid}\nsetns ${readFileSync(file, 'utf8')}\n`)
      const missing = oci([
        'create',
        '--bundle',
        bundle('true'),
        '--pidfd-socket',
        join(base, 'none'),
        'unseen',
      ])
      expect(missing).toMatchObject({ err: expect.stringContaining('send pidfd to') })
      expect(oci(['state', 'unseen']).code).toBe(1)
    } finally {
      receiver.kill('SIGKILL')
      oci(['delete', '--force', 'watched'])
    }
  },
)

onHost('a tree without a mount at /dev keeps its devices from run to run', () => {
  const { oci, bundle } = host
  const folder = bundle('echo x >/dev/null && stat -c %a:%t:%T /dev/null')
  const file = join(folder, 'config.json')
  const config = JSON.parse(readFileSync(file, 'utf8'))
  config.mounts = config.mounts.filter((mount: { destination: string }) => mount.destination !== '/dev')
  writeFileSync(file, JSON.stringify(config))
  for (let round = 0; round < 2; round++)
    expect(oci(['run', '--bundle', folder, 'again'])).toEqual({ code: 0, out: '666:1:3\n', err: '' })
  execFileSync('mknod', [join(folder, 'rootfs/dev/other'), 'p'])
  config.linux.devices = [{ path: '/dev/other', type: 'c', major: 1, minor: 3 }]
  writeFileSync(file, JSON.stringify(config))
  expect(oci(['run', '--bundle', folder, 'again']).err).toContain('mknod /dev/other: File exists')
})
