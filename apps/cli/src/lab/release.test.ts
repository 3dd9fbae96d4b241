import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createReleaseKey, verifyManifest } from '@kiln/pki'
import { afterAll, expect, test } from 'vitest'
import { stageRelease } from './release.ts'
import { createStateFolder, stateFolder } from './state-folder.ts'

const base = mkdtempSync(join(tmpdir(), 'kiln-release-'))
afterAll(() => rmSync(base, { recursive: true }))

const parts = ['usr.img', 'vmlinuz']
/** What a build leaves: a manifest and its parts, which hold `content`. */
function built(name: string, content: string, changes: object = {}): string {
  const folder = join(base, name)
  mkdirSync(folder)
  const manifest = {
    formatVersion: 1,
    version: '0.7.0',
    arch: 'x86_64',
    createdAt: '2026-01-01T00:00:00Z',
    expiresAt: '2027-01-01T00:00:00Z',
    usrRootHash: 'a'.repeat(64),
    usrHashOffset: 4096,
    kernelArguments: [],
    parts: parts.map((part) => ({ name: part, sizeBytes: 1, sha256: 'b'.repeat(64) })),
    ...changes,
  }
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest))
  for (const part of parts) writeFileSync(join(folder, part), content)
  return folder
}

test('a release is staged as a whole; a bad one leaves what is served as it was', async () => {
  const state = stateFolder(join(base, 'state'), {})
  createStateFolder(state)
  const key = createReleaseKey()
  const served = join(state.assets, 'releases/0.7.0')
  const serves = (): string[] => parts.map((part) => readFileSync(join(served, part), 'utf8'))
  expect(await stageRelease(state, built('first', 'one'), key.privateKey)).toBe('0.7.0')
  expect(serves()).toEqual(['one', 'one'])
  const signature = readFileSync(join(served, 'manifest.json.sig'), 'utf8')
  const manifest = readFileSync(join(served, 'manifest.json'))
  expect(verifyManifest(manifest, signature, [key.publicKey], new Date()).version).toBe('0.7.0')

  const partless = built('partless', 'two')
  rmSync(join(partless, 'vmlinuz'))
  const torn = built('torn', 'two')
  writeFileSync(join(torn, 'manifest.json'), '{')
  const bad: [string, string, string?][] = [
    [join(base, 'nowhere'), 'RELEASE_UNKNOWN'],
    [partless, 'RELEASE_UNKNOWN'],
    [torn, 'RELEASE_MANIFEST_INVALID'],
    [built('newer', 'two', { version: '0.8.0' }), 'USAGE', '0.7.0'],
  ]
  for (const [folder, code, version] of bad)
    await expect(stageRelease(state, folder, key.privateKey, version)).rejects.toMatchObject({ code })
  await expect(stageRelease(state, built('keyless', 'two'), 'no key')).rejects.toMatchObject({
    code: 'RELEASE_KEY_INVALID',
  })
  expect(serves()).toEqual(['one', 'one'])
  expect(readdirSync(join(state.assets, 'releases'))).toEqual(['0.7.0'])
  expect(readdirSync(state.bootData)).toEqual(['assets'])

  await stageRelease(state, built('second', 'three'), key.privateKey)
  expect(serves()).toEqual(['three', 'three'])
})
