import { mkdir, mkdtemp, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { findSubPath } from './sub-path.ts'

const folders: string[] = []
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true })
})

async function newVolume(): Promise<{ name: string; folder: string; gid: number }> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'sub-path-')))
  folders.push(folder)
  return { name: 'v', folder, gid: process.getgid?.() ?? 0 }
}

test('folders are found or made, files are found, and a volume itself may be behind a symlink', async () => {
  const volume = await newVolume()
  await mkdir(join(volume.folder, 'a'))
  await writeFile(join(volume.folder, 'a/file'), '')
  expect(await findSubPath(volume, 'a/file')).toBe(join(volume.folder, 'a/file'))
  await symlink('a', join(volume.folder, 'link'))
  const linked = { ...volume, folder: join(volume.folder, 'link') }
  if (process.getuid?.() !== 0) return expect(await findSubPath(linked, 'file')).toContain('/a/file')
  expect(await findSubPath(linked, 'b/c')).toBe(join(volume.folder, 'a/b/c'))
  expect((await stat(join(volume.folder, 'a/b/c'))).mode & 0o777).toBe(0o777)
})

test('a symlink, a file on the way and a volume that is a file are refused', async () => {
  const volume = await newVolume()
  await writeFile(join(volume.folder, 'file'), '')
  await symlink('/etc', join(volume.folder, 'etc'))
  const refused = { code: 'POD_SUBPATH_REFUSED' }
  await expect(findSubPath(volume, 'etc')).rejects.toMatchObject(refused)
  await expect(findSubPath(volume, 'etc/passwd')).rejects.toMatchObject(refused)
  await expect(findSubPath(volume, 'file/x')).rejects.toMatchObject(refused)
  const file = { ...volume, folder: join(volume.folder, 'file') }
  await expect(findSubPath(file, 'x')).rejects.toMatchObject(refused)
})
