import { generateKeyPairSync } from 'node:crypto'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openLayout } from '@kiln/oci'
import { type StubRegistry, startStubRegistry } from '@kiln/oci/stub-registry'
import { createLog } from '@kiln/service'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type RuntimeApi, serveApi } from './api.ts'
import { runCommand } from './commands.ts'
import { type ImageEntry, type ImageUser, openImageService } from './image-service.ts'
import { type Images, openImages } from './images.ts'

const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
let folder: string
let socket: string
let registry: StubRegistry
let images: Images
let users: ImageUser[]
let close: () => Promise<void>

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kiln-image-'))
  socket = join(folder, 'runtime.sock')
  registry = await startStubRegistry()
  users = []
  const log = createLog('test', 'silent')
  const shared = {
    folder: join(folder, 'store'),
    imagePolicyFile: join(folder, 'policy.json'),
    signal: new AbortController().signal,
    log,
  }
  images = await openImages({
    ...shared,
    bootUrl: undefined,
    bytesMax: 1 << 20,
    registriesFile: '/nonexistent',
    registryAuthFile: '/nonexistent',
  })
  const inUse = () => ({
    references: new Set(users.flatMap(({ references }) => references)),
    chains: new Set(users.flatMap(({ chains }) => chains)),
  })
  const service = openImageService({ ...shared, images, users: () => users, inUse })
  const server = await serveApi({ socket, log, api: { images: service } as unknown as RuntimeApi })
  close = () => server.close()
})

afterEach(async () => {
  await close()
  registry.close()
  rmSync(folder, { recursive: true })
})

type Outcome = { code: number; out: string[]; err: string; shown: string[] }

async function run(...argv: string[]): Promise<Outcome> {
  const out: string[] = []
  const err: string[] = []
  const shown: string[] = []
  const code = await runCommand(['image', ...argv], {
    socket,
    print: (line) => out.push(line),
    complain: (line) => err.push(line),
    status: (text) => shown.push(text),
  })
  return { code, out, err: err.join('\n'), shown }
}

const add = (tag: string, content = tag) =>
  registry.add(
    {
      layers: [[{ path: 'file', content: content.repeat(100) }]],
      config: { Cmd: [`/${tag}`] },
      architecture,
    },
    tag,
  )
const name = (tag: string): string => `${registry.host}/library/x:${tag}`
const listed = async (): Promise<ImageEntry[]> => JSON.parse((await run('list', '--format', 'json')).out[0]!)
const names = async (): Promise<string[]> => (await listed()).map(({ reference }) => reference)

/** As if the image had not been used for this long. */
function age(hours: number, tag: string): void {
  const records = join(folder, 'store/records')
  for (const file of readdirSync(records)) {
    const path = join(records, file)
    const time = new Date(Date.now() - hours * 3_600_000)
    if (readFileSync(path, 'utf8').includes(`:${tag}"`)) utimesSync(path, time, time)
  }
}

test('an image is fetched with progress; the policy says whether its registry is asked', async () => {
  const first = await add('v1')
  expect(await run('fetch', '--pull-policy', 'never', name('v1'))).toMatchObject({
    code: 3,
    err: expect.stringContaining('IMAGE_NOT_PRESENT'),
  })
  const fetched = await run('fetch', name('v1'))
  expect(fetched).toMatchObject({ code: 0, out: [first.manifestDigest] })
  expect(fetched.shown.at(-2)).toMatch(/\[={20}\] 100% of .*, layer 1\/1$/)
  const second = await add('v1', 'other')
  expect((await run('fetch', '--pull-policy', 'never', name('v1'))).out).toEqual([first.manifestDigest])
  expect((await run('fetch', name('v1'))).out).toEqual([first.manifestDigest])
  expect((await run('fetch', '--pull-policy', 'update', name('v1'))).out).toEqual([second.manifestDigest])
  registry.manifests.clear()
  expect((await run('fetch', '--pull-policy', 'update', name('v1'))).code).toBe(3)
  expect((await run('fetch', '--pull-policy', 'often', name('v1'))).code).toBe(2)
  expect((await run('fetch', 'NoName')).err).toContain('IMAGE_REFERENCE_INVALID')
})

test('images are listed with the fields, in the order and in the format that are asked for', async () => {
  for (const [tag, size] of [
    ['b', 3],
    ['a', 2],
    ['c', 9],
  ] as const) {
    await add(
      tag,
      String.fromCharCode(...Array.from({ length: size * 50 }, (_, at) => 33 + ((at * 7919 + size) % 90))),
    )
    await run('fetch', name(tag))
  }
  age(30, 'a')
  users = [{ pod: 'web', references: [name('c')], chains: [] }]
  const column = async (...args: string[]) =>
    (await run('list', '--fields', 'name', '--no-legend', ...args)).out.map((line) => line.at(-1)).join('')
  expect(await column()).toBe('bac')
  expect(await column('--sort', 'name')).toBe('abc')
  expect(await column('--sort', 'name', '--order', 'desc')).toBe('cba')
  expect(await column('--sort', 'size')).toBe('abc')
  expect((await column('--sort', 'used'))[0]).toBe('a')
  const { out } = await run('list', '--fields', 'name,used,pods', '--sort', 'name')
  expect(out[0]).toMatch(/^NAME +USED +PODS$/)
  expect(out[1]).toMatch(/:a +1d ago +-$/)
  expect(out[3]).toMatch(/:c +\ds ago +web$/)
  const [entry] = await listed()
  expect((await run('list', '--fields', 'id', '--no-legend')).out[0]).toBe(entry!.digest.slice(7, 19))
  expect((await run('list', '--fields', 'id,imported', '--full', '--no-legend')).out[0]).toBe(
    `${entry!.digest}  ${entry!.importedAt}`,
  )
  expect(JSON.parse((await run('list', '--format', 'json-pretty')).out[0]!)).toEqual(await listed())
  expect(await run('list', '--fields', 'nope')).toMatchObject({
    code: 2,
    err: expect.stringContaining('nope'),
  })
})

test('images are removed by name, digest or unique beginning of one, but not what a pod uses', async () => {
  const digests = new Map<string, string>()
  for (const tag of ['a', 'b', 'c', 'd']) {
    digests.set(tag, (await add(tag)).manifestDigest)
    await run('fetch', name(tag))
  }
  const [c] = (await images.list()).filter(({ reference }) => reference === name('c'))
  users = [
    { pod: 'web', references: [name('a')], chains: [] },
    { pod: 'old', references: [], chains: [c!.chainId] },
  ]
  expect(await run('rm', name('a'), name('b'))).toMatchObject({
    code: 4,
    err: expect.stringMatching(/IMAGE_IN_USE: image .*:a is used by pod web/),
  })
  expect((await run('rm', name('c'))).err).toContain('used by pod old')
  expect(await names()).toHaveLength(4)
  expect((await run('rm', digests.get('b')!.slice(7, 20))).out).toEqual([name('b')])
  expect((await run('rm', `docker://${name('d')}`)).out).toEqual([name('d')])
  expect(await names()).toEqual(expect.not.arrayContaining([name('b'), name('d')]))
  expect(readdirSync(join(folder, 'store/trees'))).toHaveLength(2)
  expect(readdirSync(join(folder, 'store/blobs'))).toHaveLength(6)
  users = []
  expect((await run('rm', digests.get('a')!)).code).toBe(0)
  expect((await run('rm', 'abcd', name('nope'))).code).toBe(3)
})

test('collection goes by the time of last use, tells beforehand, and spares what pods use', async () => {
  for (const tag of ['used', 'old', 'young']) {
    await add(tag)
    await run('fetch', name(tag))
  }
  age(48, 'used')
  age(30, 'old')
  users = [{ pod: 'web', references: [name('used')], chains: [] }]
  const dry = await run('gc', '--dry-run')
  expect(dry.out).toEqual([expect.stringMatching(/^would remove .*:old \(.*B\)$/)])
  expect((await run('gc', '--grace-period', '36h')).out).toEqual([])
  expect(await names()).toHaveLength(3)
  expect((await run('gc')).out).toEqual([expect.stringMatching(/^removed .*:old /)])
  users = []
  // In use a moment ago.
  expect((await run('gc')).out).toEqual([])
  expect((await run('gc', '--grace-period', '0')).out).toHaveLength(2)
  expect(readdirSync(join(folder, 'store/trees'))).toEqual([])
  expect(readdirSync(join(folder, 'store/blobs'))).toEqual([])
  expect((await run('gc', '--grace-period', 'soon')).code).toBe(2)
})

test('verify names the blob that is damaged, fsck finds the same, repairs it, and fetching heals it', async () => {
  const { layers } = await add('v1')
  await run('fetch', name('v1'))
  expect((await run('verify', name('v1'))).out).toEqual([`${name('v1')}: ok`])
  expect((await run('fsck')).out).toEqual(['the store is sound'])
  const path = join(folder, 'store/blobs', layers[0]!.slice(7))
  const bytes = readFileSync(path)
  bytes[20]! ^= 1
  writeFileSync(path, bytes)
  expect(await run('verify', '--all')).toMatchObject({
    code: 1,
    out: [`${name('v1')}: damaged ${layers[0]}`],
  })
  expect(await run('fsck')).toMatchObject({
    code: 1,
    out: [expect.stringMatching(/^damaged blobs\/.*: fetch .*v1 again$/)],
  })
  expect(await run('fsck', '--repair')).toMatchObject({
    code: 0,
    out: [expect.stringContaining('(removed)')],
  })
  expect((await run('verify', name('v1'))).out).toEqual([`${name('v1')}: missing ${layers[0]}`])
  expect((await run('fetch', '--pull-policy', 'update', name('v1'))).code).toBe(0)
  expect((await run('verify', name('v1'))).code).toBe(0)
  expect(JSON.parse((await run('fsck', '--json')).out[0]!)).toEqual([])
  expect((await run('verify')).code).toBe(2)
})

test('an image is exported with the digest it has, and its manifest and config are printed as they are', async () => {
  const { manifestDigest } = await add('v1')
  await run('fetch', name('v1'))
  const target = join(folder, 'layout')
  expect(await run('export', name('v1'), target, '--name', 'v1')).toMatchObject({ code: 0 })
  expect((await openLayout({ path: target, tag: 'v1', architecture })).digest).toBe(manifestDigest)
  expect(await run('export', name('v1'), target)).toMatchObject({
    code: 4,
    err: expect.stringContaining('EXPORT_TARGET_EXISTS'),
  })
  const archive = join(folder, 'x.tar')
  expect(
    (await run('export', name('v1'), archive, '--format', 'docker-archive', '--name', 'x:v1')).code,
  ).toBe(0)
  expect((await run('fetch', `docker-archive:${archive}`)).code).toBe(0)
  const manifest = await run('cat-manifest', name('v1'))
  expect(manifest.out[0]).toBe(Buffer.from(registry.blobs.get(manifestDigest)!).toString())
  expect(JSON.parse((await run('cat-manifest', name('v1'), '--config')).out[0]!).config.Cmd).toEqual(['/v1'])
  expect((await run('cat-manifest', name('v1'), '--pretty-print')).out[0]).toContain('\n  "layers"')
  expect((await run('cat-manifest', 'nope')).code).toBe(3)
})

test('the files of an image are extracted, with or without what describes it, and replace a folder only if asked', async () => {
  const { manifestDigest } = await registry.add(
    {
      layers: [
        [
          { path: 'bin', type: 'directory' },
          { path: 'bin/one', content: 'first', mode: 0o4755 },
          { path: 'bin/two', type: 'link', target: 'bin/one' },
          { path: 'gone', content: 'x' },
        ],
        [
          { path: '.wh.gone', content: '' },
          { path: 'to', type: 'symlink', target: '/bin/one' },
        ],
      ],
      config: { Cmd: ['/bin/one'] },
      architecture,
    },
    'v1',
  )
  await run('fetch', name('v1'))
  const target = join(folder, 'files')
  expect(await run('extract', name('v1'), target)).toMatchObject({ code: 0, err: '' })
  expect(readdirSync(target).sort()).toEqual(['config', 'manifest', 'rootfs'])
  expect(readFileSync(join(target, 'manifest'), 'utf8')).toBe(
    Buffer.from(registry.blobs.get(manifestDigest)!).toString(),
  )
  expect(readdirSync(join(target, 'rootfs')).sort()).toEqual(['bin', 'to'])
  const one = statSync(join(target, 'rootfs/bin/one'))
  expect([one.mode & 0o7777, one.nlink, readlinkSync(join(target, 'rootfs/to'))]).toEqual([
    0o4755,
    2,
    '/bin/one',
  ])
  expect(await run('render', name('v1'), target, '--rootfs-only')).toMatchObject({ code: 4 })
  expect((await run('render', name('v1'), target, '--rootfs-only', '--overwrite')).code).toBe(0)
  expect(readdirSync(target).sort()).toEqual(['bin', 'to'])
  expect(readdirSync(folder).filter((each) => each.startsWith('files.'))).toEqual([])
  writeFileSync(join(folder, 'plain'), 'mine')
  expect((await run('extract', '--overwrite', name('v1'), join(folder, 'plain'))).code).toBe(4)
  expect(await run('extract', name('v1'), join(folder, 'no/such'))).toMatchObject({
    err: expect.stringContaining('EXPORT_FAILED'),
  })
})

const newKey = (file: string) => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const path = join(folder, file)
  writeFileSync(path, publicKey.export({ type: 'spki', format: 'pem' }))
  return { path, privateKey }
}

test('under a policy an unsigned image is refused, a wrong key is refused, the right one accepted', async () => {
  const [key, other] = [newKey('key.pem'), newKey('other.pem')]
  const added = await run('trust', 'add', '--prefix', `${registry.host}/library`, key.path)
  const fingerprint = /sha256:[0-9a-f]{64}$/.exec(added.out[0]!)?.[0]
  expect(fingerprint).toBeDefined()
  expect((await run('trust', 'list')).out).toEqual([
    expect.stringMatching(/^PREFIX +POLICY +KEY$/),
    expect.stringMatching(/^\(root\) +accept +-$/),
    `${registry.host}/library  signed  ${fingerprint}`,
  ])
  const { manifestDigest } = await add('v1')
  const refused = await run('fetch', name('v1'))
  expect(refused).toMatchObject({ code: 4, err: expect.stringContaining('IMAGE_NOT_SIGNED') })
  registry.sign(manifestDigest, other.privateKey)
  expect(await run('fetch', name('v1'))).toMatchObject({
    code: 4,
    err: expect.stringContaining('IMAGE_SIGNATURE_REFUSED'),
  })
  expect(['trees', 'blobs', 'records'].map((each) => readdirSync(join(folder, 'store', each)))).toEqual([
    [],
    [],
    [],
  ])
  registry.sign(manifestDigest, key.privateKey)
  expect((await run('fetch', name('v1'))).out).toEqual([manifestDigest])
  expect((await run('list', '--fields', 'signed', '--full', '--no-legend')).out).toEqual([fingerprint])
})

test('a pod gets no image that the policy of now refuses, even if it is here', async () => {
  const key = newKey('key.pem')
  const { manifestDigest } = await add('v1')
  await run('fetch', name('v1'))
  await run('trust', 'add', '--root', key.path)
  const acquire = (policy: 'Never' | 'IfNotPresent' | 'Always' = 'IfNotPresent') =>
    images.acquire(name('v1'), policy)
  for (const policy of ['Never', 'IfNotPresent', 'Always'] as const)
    await expect(acquire(policy)).rejects.toMatchObject({ code: 'IMAGE_NOT_SIGNED' })
  // Its signature is looked for again, and nothing else is fetched.
  registry.sign(manifestDigest, key.privateKey)
  const before = registry.seen.length
  expect((await acquire()).digest).toBe(manifestDigest)
  const blobs = registry.seen.slice(before).filter(({ path }) => path.includes('/blobs/'))
  expect(blobs).toHaveLength(1)
  expect((await acquire('Never')).digest).toBe(manifestDigest)
  const [entry] = await listed()
  expect((await run('trust', 'rm', '--root', entry!.signedBy[0]!.slice(0, 20))).err).toContain(
    'no key is left for (root)',
  )
  await expect(acquire('Never')).rejects.toMatchObject({ code: 'IMAGE_NOT_SIGNED' })
  await expect(acquire()).rejects.toMatchObject({ code: 'IMAGE_SIGNATURE_REFUSED' })
  await run('trust', 'set', '--root', 'refuse')
  await expect(acquire('Never')).rejects.toMatchObject({ code: 'IMAGE_REFUSED' })
  await run('trust', 'set', '--prefix', registry.host, 'accept')
  expect((await acquire()).digest).toBe(manifestDigest)
  // A policy that cannot be read opens nothing.
  writeFileSync(join(folder, 'policy.json'), '{')
  await expect(acquire()).rejects.toMatchObject({ code: 'IMAGE_POLICY_FILE' })
  await expect(images.acquire(name('v2'), 'Always')).rejects.toMatchObject({ code: 'IMAGE_POLICY_FILE' })
})

test('with a default that refuses, kinds and prefixes are let in by name', async () => {
  const key = newKey('key.pem')
  await add('v1')
  await run('fetch', name('v1'))
  await run('export', name('v1'), join(folder, 'layout'))
  const layout = `oci:${join(folder, 'layout')}`
  expect((await run('trust', 'set', '--root', 'refuse')).out).toEqual(['(root): refuse'])
  expect(await run('fetch', layout)).toMatchObject({ code: 4, err: expect.stringContaining('IMAGE_REFUSED') })
  await run('trust', 'add', '--root', key.path)
  expect((await run('fetch', layout)).err).toContain('is of a kind that has none')
  expect((await run('trust', 'add', '--prefix', 'oci:', key.path)).err).toContain('IMAGE_PREFIX_INVALID')
  expect((await run('trust', 'set', '--prefix', 'oci:', 'accept')).code).toBe(0)
  expect((await run('fetch', layout)).code).toBe(0)
  expect((await run('trust', 'rm', '--prefix', 'oci:')).code).toBe(0)
  expect((await run('trust', 'rm', '--prefix', 'oci:')).code).toBe(3)
  expect((await run('trust', 'set', 'accept')).code).toBe(2)
  expect((await run('trust', 'set', '--root', 'perhaps')).code).toBe(2)
  expect((await run('trust', 'add', '--root', '/nonexistent')).code).toBe(3)
  expect((await run('trust', 'add', '--prefix', 'me/x', key.path)).code).toBe(7)
})

test('the check of signatures is turned off by name only, for one image, and that is shown', async () => {
  await run('trust', 'set', '--root', 'refuse')
  await add('v1')
  expect((await run('fetch', '--insecure-options=all', name('v1'))).code).toBe(2)
  expect((await run('fetch', '--insecure-options=image', name('v1'))).code).toBe(0)
  expect((await run('list', '--fields', 'signed', '--no-legend')).out).toEqual(['insecure'])
  expect((await images.acquire(name('v1'), 'IfNotPresent')).reference).toBe(name('v1'))
  await expect(images.acquire(name('v1'), 'Always')).rejects.toMatchObject({ code: 'IMAGE_REFUSED' })
  await add('v2')
  await expect(images.acquire(name('v2'), 'IfNotPresent')).rejects.toMatchObject({ code: 'IMAGE_REFUSED' })
  expect(existsSync(images.treeOf((await images.list())[0]!))).toBe(true)
})

test('an unchecked fetch does not let in a pod that waits for the same image', async () => {
  await run('trust', 'set', '--root', 'refuse')
  await add('v1')
  const [insecure, pod] = await Promise.allSettled([
    images.acquire(name('v1'), 'IfNotPresent', { insecure: true }),
    images.acquire(name('v1'), 'IfNotPresent'),
  ])
  expect([insecure!.status, pod!.status]).toEqual(['fulfilled', 'rejected'])
})
