import { chmodSync, mkdirSync, rmdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { leftovers, prepare, unable } from './testing/bundle.ts'

/** Where a container's mounts come from and go to, on this host. */
if (unable) console.log(`skipped: the mounts of kiln-oci on this host: ${unable}`)
const onHost = test.skipIf(unable !== undefined)

let host: Awaited<ReturnType<typeof prepare>>
beforeAll(async () => {
  host = await prepare()
  chmodSync(host.base, 0o755)
}, 120_000)

const outside = 100_000
const userNamespace = {
  namespaces: ['pid', 'mount', 'network', 'ipc', 'uts', 'user'].map((type) => ({ type })),
  uidMappings: [{ containerID: 0, hostID: outside, size: 65534 }],
  gidMappings: [{ containerID: 0, hostID: 2 * outside, size: 65534 }],
}

onHost(
  'in a user namespace, a source that its root may not reach is mounted, and the cgroups read-only',
  () => {
    const { base, oci, bundle } = host
    const hidden = join(base, 'hidden')
    mkdirSync(join(hidden, 'dir'), { recursive: true })
    writeFileSync(join(hidden, 'dir/word'), 'reached\n')
    chmodSync(hidden, 0o700)
    const mounts = [
      { destination: '/mnt', source: join(hidden, 'dir'), options: ['bind'] },
      { destination: '/sys', type: 'tmpfs', source: 'tmpfs' },
      { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid'] },
    ]
    const script =
      'cat /mnt/word; mkdir /sys/fs/cgroup/x 2>/dev/null || echo protected; sed -n 1p /proc/self/uid_map'
    const done = oci(['run', '--bundle', bundle(script, { linux: userNamespace, mounts }), 'mapped'])
    expect({ ...done, out: done.out.split(/\s+/) }).toEqual({
      code: 0,
      out: ['reached', 'protected', '0', String(outside), '65534', ''],
      err: '',
    })
  },
)

onHost('proc and sysfs are not mounted where a symlink of the root leads', () => {
  const { base, root, oci, bundle } = host
  const mounts = [{ destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] }]
  for (const name of ['proc', 'sys'])
    for (const target of ['/tmp', '/nowhere', 'usr']) {
      const folder = bundle('true', { mounts })
      rmdirSync(join(folder, 'rootfs', name))
      symlinkSync(target, join(folder, 'rootfs', name))
      const done = oci(['run', '--bundle', folder, 'astray'])
      expect(done.code).toBe(1)
      expect(done.err).toBe(`kiln-oci: open mount point /${name}: Too many levels of symbolic links\n`)
    }
  expect(leftovers(base, root, 'astray')).toEqual([])
})
