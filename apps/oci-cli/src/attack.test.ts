import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'

/** One test for each class of escape that runtimes have had; the numbers name the best known case. */
if (unable) console.log(`skipped: attacks on kiln-oci on this host: ${unable}`)
const onHost = test.skipIf(unable !== undefined)

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
}, 120_000)

const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')
const everything = [
  'CAP_SYS_ADMIN',
  'CAP_DAC_OVERRIDE',
  'CAP_SYS_CHROOT',
  'CAP_MKNOD',
  'CAP_CHOWN',
  'CAP_FOWNER',
]
const capabilities = { bounding: everything, effective: everything, permitted: everything }

onHost('the runtime cannot be overwritten through /proc/PID/exe (CVE-2019-5736)', () => {
  const { oci, bundle, command } = host
  const before = digest(command)
  // #!/proc/self/exe makes the container's program the runtime itself; a hook of its own could then write to it.
  const folder = bundle('for p in /proc/[0-9]*/exe; do (echo pwned >$p) 2>/dev/null; done; sleep 1; true', {
    process: { capabilities },
  })
  expect(oci(['run', '--bundle', folder, 'overwrite']).code).toBe(0)
  const created = bundle('exec sleep 100', { process: { capabilities } })
  expect(oci(['create', '--bundle', created, 'waiting']).err).toBe('')
  const waiting = oci([
    'exec',
    'waiting',
    '/bin/sh',
    '-c',
    '(echo pwned >/proc/1/exe) 2>&1; ls -l /proc/1/exe',
  ])
  expect(waiting.out).not.toContain(command)
  oci(['delete', '--force', 'waiting'])
  expect(digest(command)).toBe(before)
})

onHost(
  'no descriptor of the host reaches the program, and no working directory leads out (CVE-2024-21626)',
  () => {
    const { oci, bundle, base, root } = host
    expect(oci(['run', '--bundle', bundle('ls /proc/self/fd | wc -l'), 'fds']).out.trim()).toBe('4')
    for (let fd = 3; fd < 20; fd++) {
      const folder = bundle('pwd -P; cat /etc/hostname /etc/shadow 2>/dev/null | head -c1', {
        process: { cwd: `/proc/self/fd/${fd}` },
      })
      const done = oci(['run', '--bundle', folder, 'cwd'])
      expect(done.code, `descriptor ${fd}: ${done.out}`).not.toBe(0)
      expect(done.out).toBe('')
    }
    expect(leftovers(base, root, 'cwd')).toEqual([])
  },
)

onHost('a mount point that is a symlink stays inside (CVE-2021-30465, CVE-2019-19921)', () => {
  const { oci, bundle, base } = host
  mkdirSync(join(base, 'outside'), { recursive: true })
  mkdirSync(join(base, 'source'), { recursive: true })
  for (const destination of ['/link/x', '/link', `/../../..${base}/outside/y`]) {
    const folder = bundle('true', {
      mounts: [{ destination, type: 'bind', source: join(base, 'source'), options: ['bind'] }],
    })
    symlinkSync(join(base, 'outside'), join(folder, 'rootfs/link'))
    oci(['run', '--bundle', folder, 'link'])
    expect(existsSync(join(base, 'outside/x'))).toBe(false)
    expect(existsSync(join(base, 'outside/y'))).toBe(false)
  }
  const proc = bundle('true')
  rmdirSync(join(proc, 'rootfs/proc'))
  symlinkSync('/tmp', join(proc, 'rootfs/proc'))
  expect(oci(['run', '--bundle', proc, 'proc']).code).not.toBe(0)
})

onHost('a symlink that is exchanged while mounts are made does not lead out', () => {
  const { oci, bundle, base } = host
  const outside = join(base, 'swap-outside')
  mkdirSync(outside, { recursive: true })
  const mounts = ['/swap', '/swap/a', '/swap/a/b'].map((destination) => ({
    destination,
    type: 'tmpfs',
    source: 't',
  }))
  const folder = bundle('true', { mounts })
  const script = `while :; do ln -s ${outside} link; mv -T link swap 2>/dev/null; rm -f swap link; mkdir swap; rmdir swap; done`
  const attacker = spawn('bash', ['-c', script], { cwd: join(folder, 'rootfs'), stdio: 'ignore' })
  try {
    for (let round = 0; round < 10; round++) oci(['run', '--bundle', folder, `swap${round}`])
  } finally {
    attacker.kill('SIGKILL')
  }
  expect(readdirSync(outside)).toEqual([])
  expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(outside)
})

onHost('masked and read-only paths hold, also when the image put symlinks there (CVE-2025-31133)', () => {
  const { oci, bundle } = host
  const linux = { maskedPaths: ['/tmp/secret', '/tmp/folder', '/tmp/missing'], readonlyPaths: ['/tmp/fixed'] }
  const folder = bundle(
    'cat /tmp/secret | wc -c; ls /tmp/folder | wc -l; (echo x >/tmp/fixed/f) 2>/dev/null || echo ro; umount /tmp/secret 2>/dev/null || echo stays',
    { linux: { namespaces: ['pid', 'mount', 'network', 'ipc', 'uts'].map((type) => ({ type })), ...linux } },
  )
  const at = (name: string) => join(folder, 'rootfs/tmp', name)
  writeFileSync(at('secret'), 'secret')
  for (const name of ['folder', 'fixed']) mkdirSync(at(name))
  writeFileSync(join(at('folder'), 'x'), 'x')
  expect(oci(['run', '--bundle', folder, 'masked']).out).toBe('0\n0\nro\nstays\n')
})

onHost(
  'release_agent cannot be set from inside: cgroups are read-only and a new one needs a privilege',
  () => {
    const { oci, bundle } = host
    const mounts = [
      {
        destination: '/sys/fs/cgroup',
        type: 'cgroup',
        source: 'cgroup',
        options: ['ro', 'nosuid', 'noexec', 'nodev'],
      },
    ]
    const script =
      'for f in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release); do (echo /x >$f) 2>/dev/null && echo wrote $f; done; mkdir /tmp/c; mount -t cgroup -o memory c /tmp/c 2>/dev/null && echo mounted; echo end'
    expect(oci(['run', '--bundle', bundle(script, { mounts }), 'agent']).out).toBe('end\n')
  },
)

onHost('nothing of the caller, environment or memory, is in the first process', () => {
  const { oci, bundle } = host
  process.env['KILN_TEST_SECRET'] = 'do-not-leak-me'
  try {
    expect(
      oci(['create', '--bundle', bundle('exec sleep 100', { process: { capabilities } }), 'environment']).err,
    ).toBe('')
    const seen = oci(['exec', 'environment', '/bin/sh', '-c', 'tr "\\0" "\\n" </proc/1/environ; env'])
    expect(seen.out + seen.err).not.toContain('do-not-leak-me')
  } finally {
    delete process.env['KILN_TEST_SECRET']
    oci(['delete', '--force', 'environment'])
  }
})
