import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { IgnitionConfig } from '@kiln/schemas'
import { expect, test } from 'vitest'
import { applyNodes } from './nodes.ts'
import { insideRoot } from './root-path.ts'
import { simulatedRun } from './simulated-run.ts'
import { openTargetRoot } from './target-root.ts'

type Storage = NonNullable<IgnitionConfig['storage']>

/** Applies `storage` below a folder that `prepare` has filled. */
async function apply(storage: Storage, prepare: (root: string) => void = () => undefined) {
  const { run, root } = simulatedRun()
  mkdirSync(root)
  prepare(root)
  const config = { ignition: { version: '3.6.0' }, storage }
  const outcome = await applyNodes({ config, configHash: 'hash' }, openTargetRoot(run), run).then(
    () => 'done',
    (error: { code: string; path?: string }) => `${error.code} ${error.path ?? ''}`.trim(),
  )
  return { outcome, root, read: (path: string) => readFileSync(join(root, path), 'utf8') }
}

const mode = (path: string): string => (lstatSync(path).mode & 0o7777).toString(8)
const text = (value: string) => ({ source: `data:,${value}` })

test('files have mode 0644 and parents 0755 unless said otherwise, whatever the umask', async () => {
  const before = process.umask(0o077)
  try {
    const files = [
      { path: '/a/b/c', contents: text('x') },
      { path: '/d', mode: 0o4755 },
    ]
    const directories = [{ path: '/e', mode: 0o1777 }, { path: '/f' }]
    const { outcome, root } = await apply({ files, directories })
    expect(outcome).toBe('done')
    expect(['a', 'a/b', 'a/b/c', 'd', 'e', 'f'].map((path) => mode(join(root, path)))).toEqual([
      '755',
      '755',
      '644',
      '4755',
      '1777',
      '755',
    ])
  } finally {
    process.umask(before)
  }
})

test('a file that exists is refused, replaced with overwrite, and only appended to without contents', async () => {
  const prepare = (root: string): void => writeFileSync(join(root, 'a'), 'old\n', { mode: 0o600 })
  const refused = await apply({ files: [{ path: '/a', contents: text('new') }] }, prepare)
  expect(refused.outcome).toBe('PATH_EXISTS $.storage.files.0')
  expect(refused.read('a')).toBe('old\n')
  const replaced = await apply({ files: [{ path: '/a', overwrite: true, contents: text('new') }] }, prepare)
  expect(replaced.read('a')).toBe('new')
  const appended = await apply({ files: [{ path: '/a', append: [text('1%0A'), text('2%0A')] }] }, prepare)
  expect(appended.read('a')).toBe('old\n1\n2\n')
  expect(mode(join(appended.root, 'a'))).toBe('600')
})

test('overwrite removes even a folder with content, but never what a link points to', async () => {
  const { outcome, root } = await apply(
    { files: [{ path: '/l', overwrite: true, contents: text('x') }] },
    (at) => {
      mkdirSync(join(at, 'target'))
      writeFileSync(join(at, 'target/kept'), '')
      symlinkSync('target', join(at, 'l'))
    },
  )
  expect(outcome).toBe('done')
  expect(lstatSync(join(root, 'l')).isFile()).toBe(true)
  expect(existsSync(join(root, 'target/kept'))).toBe(true)
})

test('a folder is not taken for a file, nor a file for a folder', async () => {
  const folder = (root: string): void => void mkdirSync(join(root, 'a'))
  expect((await apply({ files: [{ path: '/a' }] }, folder)).outcome).toMatch(/^PATH_EXISTS/)
  const file = (root: string): void => writeFileSync(join(root, 'a'), '')
  expect((await apply({ directories: [{ path: '/a' }] }, file)).outcome).toMatch(/^PATH_EXISTS/)
})

test('links are made once, hard links after what they point to', async () => {
  const links = [
    { path: '/a-hard', target: '/z', hard: true },
    { path: '/soft', target: '../x/../y' },
  ]
  const { outcome, root } = await apply({ links, files: [{ path: '/z', contents: text('z') }] }, (at) =>
    symlinkSync('../y', join(at, 'soft')),
  )
  expect(outcome).toBe('done')
  expect(statSync(join(root, 'a-hard')).ino).toBe(statSync(join(root, 'z')).ino)
  expect(readlinkSync(join(root, 'soft'))).toBe('../y')
  const other = await apply({ links: [{ path: '/soft', target: '/n' }] }, (at) =>
    symlinkSync('/y', join(at, 'soft')),
  )
  expect(other.outcome).toBe('PATH_EXISTS $.storage.links.0')
})

test('links of the root lead nowhere outside of it', async () => {
  const { outcome, root } = await apply({ files: [{ path: '/up/file', contents: text('x') }] }, (at) => {
    symlinkSync('../../../../../../../deep', join(at, 'up'))
    mkdirSync(join(at, 'deep'))
  })
  expect(outcome).toBe('done')
  expect(readFileSync(join(root, 'deep/file'), 'utf8')).toBe('x')
  symlinkSync('loop', join(root, 'loop'))
  expect(() => insideRoot(root, '/loop/x')).toThrow(/more than 40 links/)
})

test('two paths that are one place because of a link are refused', async () => {
  const { outcome } = await apply({ files: [{ path: '/real/f' }, { path: '/alias/f' }] }, (at) => {
    mkdirSync(join(at, 'real'))
    symlinkSync('real', join(at, 'alias'))
  })
  expect(outcome).toBe('PATH_TWICE')
})

test('an owner that nobody knows is refused', async () => {
  const { outcome } = await apply({ files: [{ path: '/a', user: { name: 'nobody-here' } }] })
  expect(outcome).toBe('OWNER_UNKNOWN $.storage.files.0')
})

test('a wrong hash leaves no file', async () => {
  const contents = { source: 'data:,x', verification: { hash: `sha256-${'0'.repeat(64)}` } }
  const { outcome, root } = await apply({ files: [{ path: '/a', contents }] })
  expect(outcome).toBe('RESOURCE_HASH_MISMATCH $.storage.files.0')
  expect(existsSync(join(root, 'a'))).toBe(false)
})
