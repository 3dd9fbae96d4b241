import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { parseTable } from '@kiln/gpt'
import { createReleaseKey, signManifest } from '@kiln/pki'
import { expect, test } from 'vitest'
import { ignite } from './ignite.ts'
import { type Answer, answering, type SimulatedRun, simulatedRun } from './simulated-run.ts'

const key = createReleaseKey()
const image = Buffer.alloc(3 * 1024 * 1024, 'image ')
const parts: Record<string, Buffer> = {
  vmlinuz: Buffer.from('the kernel'),
  initrd: Buffer.from('the initramfs'),
  'systemd-bootx64.efi': Buffer.from('the loader'),
}
const manifest = Buffer.from(
  JSON.stringify({
    formatVersion: 1,
    version: '1.2.3',
    arch: 'x86_64',
    createdAt: '2026-01-01T00:00:00Z',
    expiresAt: '2027-01-01T00:00:00Z',
    usrRootHash: 'a'.repeat(64),
    usrHashOffset: 4096,
    kernelArguments: ['console=ttyS0', 'quiet'],
    parts: Object.entries({ ...parts, 'usr.img': image }).map(([name, bytes]) => ({
      name,
      sizeBytes: bytes.length,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    })),
  }),
)

const config = (rest: object = {}): object => ({
  ignition: { version: '3.4.0' },
  storage: {
    files: [
      { path: '/etc/hostname', contents: { source: 'data:,node1%0A' } },
      {
        path: '/etc/kiln/release-keys/lab.pub',
        contents: { source: `data:;base64,${Buffer.from(key.publicKey).toString('base64')}` },
      },
    ],
  },
  ...rest,
})

type Given = {
  config?: object | string
  answers?: Record<string, Answer | Answer[]>
  cmdline?: string
  folder?: string
}

/** A machine that installs into a folder and a disk image, from a boot server that answers as given. */
function machine(
  given: Given = {},
): SimulatedRun & { disk: string; ignite(): Promise<number>; reports(): object[] } {
  const wanted = given.config ?? config()
  const body = typeof wanted === 'string' ? wanted : JSON.stringify(wanted, null, 1)
  const release = Object.fromEntries(
    Object.entries({ ...parts, 'manifest.json': manifest }).map(([name, bytes]): [string, Answer] => [
      `/release/${name}`,
      { status: 200, body: bytes },
    ]),
  )
  const calls: SimulatedRun['calls'] = []
  const answers = {
    '/ignition': { status: 200, body },
    '/v1/machines/node1/report': { status: 204 },
    '/release/manifest.json.sig': { status: 200, body: signManifest(manifest, key.privateKey) },
    ...release,
    ...given.answers,
  }
  const prepared = simulatedRun(given.folder === undefined ? {} : { folder: given.folder })
  const disk = join(prepared.folder, 'disk.img')
  const imageFile = join(prepared.folder, 'usr.img')
  writeFileSync(imageFile, image)
  const flags = [
    '--config',
    'http://boot/ignition',
    '--boot-url',
    'http://boot',
    '--release-url',
    'http://boot/release',
  ]
  const simulated = simulatedRun({
    folder: prepared.folder,
    calls,
    http: answering(answers, calls),
    flags: [...flags, '--disk-image', disk, '--disk-size', '1024', '--image', imageFile],
    cmdline: given.cmdline ?? '',
  })
  return {
    ...simulated,
    disk,
    ignite: () => ignite(simulated.run),
    reports: () =>
      calls
        .filter(({ method }) => method === 'POST')
        .map(({ body: report }) => JSON.parse(report ?? '') as object),
  }
}

const read = (at: { root: string }, path: string): string => readFileSync(join(at.root, path), 'utf8')

function readDisk(path: string) {
  const descriptor = openSync(path, 'r')
  const readAt = (offset: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length)
    readSync(descriptor, bytes, 0, length, offset)
    return bytes
  }
  const reading = parseTable({ sectorBytes: 512, sectors: statSync(path).size / 512 }, readAt)
  if (reading.kind !== 'table') throw new Error(`the disk has ${reading.kind}`)
  const usr = reading.table.partitions.find(({ label }) => label === 'USR-A')!
  const slot = readAt(usr.startLba * 512, image.length)
  closeSync(descriptor)
  return { labels: reading.table.partitions.map(({ label }) => label), slot }
}

test('a machine is installed into a folder and a disk image, and every stage is reported', async () => {
  const at = machine()
  expect(await at.ignite()).toBe(0)
  const disk = readDisk(at.disk)
  expect(disk.labels).toEqual(['EFI', 'USR-A', 'USR-B', 'ROOT'])
  expect(disk.slot.equals(image)).toBe(true)
  expect(read(at, 'etc/hostname')).toBe('node1\n')
  expect(read(at, 'etc/machine-id')).toMatch(/^[0-9a-f]{32}\n$/)
  expect(read(at, 'boot/kiln/1.2.3/vmlinuz')).toBe('the kernel')
  expect(read(at, 'boot/EFI/BOOT/BOOTX64.EFI')).toBe('the loader')
  expect(read(at, 'boot/loader/entries/kiln-1-1.2.3.conf').split('\n')).toEqual([
    'title Kiln 1.2.3',
    'sort-key kiln',
    'version 1',
    'linux /kiln/1.2.3/vmlinuz',
    'initrd /kiln/1.2.3/initrd',
    `options console=ttyS0 quiet kiln.usr.hash=${'a'.repeat(64)} kiln.usr.offset=4096 kiln.slot=a kiln.generation=1 kiln.version=1.2.3`,
    '',
  ])
  expect(JSON.parse(read(at, 'var/lib/kiln/installed'))).toMatchObject({ version: '1.2.3', generation: 1 })
  expect(existsSync(join(at.root, 'var/lib/kiln/installing'))).toBe(false)
  expect(JSON.parse(read(at, 'etc/.ignition-result.json'))).toMatchObject({ userConfigProvided: true })
  expect(at.reports()).toMatchObject([
    { stage: 'fetch', status: 'running' },
    { stage: 'fetch', status: 'done' },
    { stage: 'disks', status: 'running' },
    { stage: 'disks', status: 'done' },
    { stage: 'image', status: 'running' },
    { stage: 'image', status: 'done' },
    { stage: 'files', status: 'running' },
    { stage: 'files', status: 'done', version: '1.2.3', slot: 'a', generation: 1 },
  ])
  expect(
    at.said.filter((line) => line.startsWith('MARK:')).map((line) => line.replace(/uptime=\S+ /, '')),
  ).toContainEqual(expect.stringMatching(/^MARK:files status=done cpu=\d+\.\d\d$/))
  expect(at.commands).toEqual([])
})

test('kernel arguments of the config are in the entry, and on the ESP for later updates', async () => {
  const kernelArguments = { shouldExist: ['debug', 'console=ttyS0'], shouldNotExist: ['quiet'] }
  const at = machine({ config: config({ kernelArguments }) })
  expect(await at.ignite()).toBe(0)
  expect(read(at, 'boot/loader/entries/kiln-1-1.2.3.conf')).toMatch(
    /^options console=ttyS0 debug kiln\.usr\.hash=/m,
  )
  expect(JSON.parse(read(at, 'boot/kiln-arguments.json'))).toEqual({ formatVersion: 1, ...kernelArguments })
})

test('kernel arguments that say what is booted are refused before anything is touched', async () => {
  const at = machine({ config: config({ kernelArguments: { shouldExist: ['kiln.slot=b'] } }) })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(/\$\.kernelArguments\.shouldExist.*KERNEL_ARGUMENT_REFUSED: kiln\.slot=b/)
  expect(existsSync(at.disk)).toBe(false)
})

test('a value of a wrong type is told with the path of its field, which the validator has in the message only', async () => {
  const at = machine({
    config:
      '{\n "ignition": {"version": "3.4.0"},\n "storage": {"files": [{"path": "/x", "mode": "0644"}]}\n}',
  })
  expect(await at.ignite()).toBe(1)
  const path = '$.storage.files.0.mode'
  expect(at.said.at(-1)).toContain(`kiln-ignition: fetch: ${path}:3:53: CONFIG_INVALID: `)
  expect(at.reports().at(-1)).toMatchObject({ stage: 'fetch', status: 'failed', path, line: 3, column: 53 })
})

test('an invalid config stops the machine before anything is touched, with the place on the last line', async () => {
  const at = machine({
    config: '{\n "ignition": {"version": "3.4.0"},\n "storage": {"files": [{"path": "x"}]}\n}',
  })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(
    /^kiln-ignition: fetch: \$\.storage\.files\.0\.path:3:33: CONFIG_INVALID: .*path not absolute\. .*\.$/,
  )
  expect(at.reports().at(-1)).toMatchObject({
    stage: 'fetch',
    status: 'failed',
    path: '$.storage.files.0.path',
    line: 3,
    column: 33,
  })
  expect(existsSync(at.disk)).toBe(false)
  expect(existsSync(at.root)).toBe(false)
})

test.each<[string, object, RegExp]>([
  ['RAID', { storage: { raid: [{ name: 'md', level: 'raid1', devices: ['/dev/a', '/dev/b'] }] } }, /RAID/],
  ['LUKS', { storage: { luks: [{ name: 'x', device: '/dev/a' }] } }, /LUKS/],
  ['a unit in a folder', { systemd: { units: [{ name: '../a.service', contents: '[Unit]' }] } }, /slash/],
  ['an impossible id', { passwd: { users: [{ name: 'a', uid: -1 }] } }, /-1 is not between/],
  [
    'a partition past the table',
    { storage: { disks: [{ device: '/d', partitions: [{ number: 129 }] }] } },
    /129/,
  ],
])('%s is refused by name before anything is touched', async (_, rest, message) => {
  const at = machine({ config: config(rest) })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(message)
  expect(existsSync(at.disk)).toBe(false)
})

test.each<[string, Record<string, Answer>, RegExp]>([
  [
    'a kernel that is corrupt',
    { '/release/vmlinuz': { status: 200, body: 'rotten' } },
    /RELEASE_PART_CORRUPT/,
  ],
  [
    'a signature of somebody else',
    {
      '/release/manifest.json.sig': {
        status: 200,
        body: signManifest(manifest, createReleaseKey().privateKey),
      },
    },
    /RELEASE_SIGNATURE_INVALID/,
  ],
  ['a release that is gone', { '/release/manifest.json': { status: 404 } }, /RESOURCE_NOT_FOUND/],
])('%s leaves the disk without boot loader and the root without marker', async (_, answers, message) => {
  const at = machine({ answers })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(/^kiln-ignition: image: /)
  expect(at.said.at(-1)).toMatch(message)
  expect(existsSync(join(at.root, 'boot/EFI'))).toBe(false)
  expect(existsSync(join(at.root, 'var/lib/kiln/installed'))).toBe(false)
})

test('a failure after ROOT is there is told on the disk too, and gone with the next try', async () => {
  const secret = 'correct horse battery staple'
  const files = [
    ...(config() as { storage: { files: object[] } }).storage.files,
    { path: '/etc/secret', contents: { source: `data:,${encodeURIComponent(secret)}` } },
    { path: '/srv/late', contents: { source: 'http://boot/late' } },
  ]
  const first = machine({ config: config({ storage: { files } }), answers: { '/late': { status: 404 } } })
  expect(await first.ignite()).toBe(1)
  const left = read(first, 'var/lib/kiln/failure')
  expect(left).toBe(`${first.said.at(-1)}\n`)
  expect(left).toMatch(
    /^kiln-ignition: files: \$\.storage\.files\.3: RESOURCE_NOT_FOUND: http:\/\/boot\/late /,
  )
  expect(left).toMatch(/To try again, restart the machine\.\n$/)
  expect(left + first.said.join('\n')).not.toMatch(/correct|horse/)
  const answers = { '/late': { status: 200 } }
  const second = machine({ config: config({ storage: { files } }), answers, folder: first.folder })
  expect(await second.ignite(), second.said.at(-1)).toBe(0)
  expect(existsSync(join(second.root, 'var/lib/kiln/failure'))).toBe(false)
})

test('another image than the running one is refused', async () => {
  const at = machine({ cmdline: `kiln.usr.hash=${'b'.repeat(64)}` })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(/RELEASE_MISMATCH/)
})

test('an image that changed in transit is noticed after writing', async () => {
  const at = machine()
  writeFileSync(join(at.folder, 'usr.img'), Buffer.concat([image.subarray(1), Buffer.from('x')]))
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(/IMAGE_CORRUPT/)
})

test('after a power cut at any point the second run ends the same', async () => {
  const reference = machine()
  expect(await reference.ignite()).toBe(0)
  const cutPoints = ['/release/manifest.json', '/release/initrd', '/late', '/release/systemd-bootx64.efi']
  for (const cut of cutPoints) {
    const late = { path: '/srv/late', contents: { source: 'http://boot/late' } }
    const files = [...(config() as { storage: { files: object[] } }).storage.files, late]
    const withLate = config({ storage: { files } })
    const first = machine({ config: withLate, answers: { '/late': { status: 200 }, [cut]: { status: 404 } } })
    expect(await first.ignite()).toBe(1)
    expect(existsSync(join(first.root, 'var/lib/kiln/installed'))).toBe(false)
    const second = machine({ config: withLate, answers: { '/late': { status: 200 } }, folder: first.folder })
    expect(await second.ignite(), second.said.at(-1)).toBe(0)
    expect(readDisk(second.disk)).toEqual(readDisk(reference.disk))
    expect(read(second, 'boot/EFI/BOOT/BOOTX64.EFI')).toBe('the loader')
    expect(read(second, 'etc/hostname')).toBe('node1\n')
  }
})

test('an unfinished root is emptied but for the key of the machine', async () => {
  const at = machine()
  const put = (path: string, text: string): void => {
    mkdirSync(join(at.root, path, '..'), { recursive: true })
    writeFileSync(join(at.root, path), text)
  }
  put('var/lib/kiln/installing', '{}')
  put('etc/kiln/pki/machine.key', 'the key')
  put('etc/kiln/pki/machine.pem', 'a certificate')
  put('etc/hostname', 'half')
  expect(await at.ignite()).toBe(0)
  expect(read(at, 'etc/kiln/pki/machine.key')).toBe('the key')
  expect(existsSync(join(at.root, 'etc/kiln/pki/machine.pem'))).toBe(false)
  expect(read(at, 'etc/hostname')).toBe('node1\n')
})

test('an installed root is not installed again', async () => {
  const at = machine()
  expect(await at.ignite()).toBe(0)
  const again = machine({ folder: at.folder })
  expect(await again.ignite()).toBe(1)
  expect(again.said.at(-1)).toMatch(/INSTALLED_ALREADY/)
})

test('a disk with partitions of somebody else is left alone', async () => {
  const at = machine()
  expect(await at.ignite()).toBe(0)
  rmSync(at.root, { recursive: true })
  const disks = [{ device: '/disk', wipeTable: true, partitions: [{ number: 1, label: 'theirs' }] }]
  const storage = { ...(config() as { storage: object }).storage, disks }
  const foreign = machine({ folder: at.folder, config: config({ storage }) })
  expect(await foreign.ignite()).toBe(1)
  expect(foreign.said.at(-1)).toMatch(/LAYOUT_INCOMPLETE/)
  const after = machine({ folder: at.folder })
  expect(await after.ignite()).toBe(1)
  expect(after.said.at(-1)).toMatch(/DISK_NOT_EMPTY/)
  const reinstall = machine({ folder: at.folder, cmdline: 'kiln.reinstall=1' })
  expect(await reinstall.ignite(), reinstall.said.at(-1)).toBe(0)
})

test('a boot server that does not take reports does not stop a machine', async () => {
  const at = machine({ answers: { '/v1/machines/node1/report': new Error('gone') } })
  expect(await at.ignite()).toBe(0)
})

test('a config that cannot be had is retried within the timeout, then told', async () => {
  const at = machine({ answers: { '/ignition': { status: 503 } } })
  expect(await at.ignite()).toBe(1)
  expect(at.said.at(-1)).toMatch(/^kiln-ignition: fetch: FETCH_TIMED_OUT: http:\/\/boot\/ignition .*503/)
})
