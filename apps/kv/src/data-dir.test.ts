import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lockDataDir, readIdentity, writeIdentity } from './data-dir.ts'

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kiln-kv-data-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const member = { id: 3n, name: 'm', peerUrls: ['http://a:1'], clientUrls: [], learner: false }
const identity = {
  clusterId: 0xffff_ffff_ffff_ffffn,
  memberId: 1n,
  name: 'm',
  joining: false,
  members: [member],
}

test('an empty directory has no identity, and one that was written is read back', async () => {
  expect(await readIdentity(folder)).toBeUndefined()
  await writeIdentity(folder, identity)
  expect(await readIdentity(folder)).toEqual({ formatVersion: 1, ...identity })
})

test('a damaged, a newer and a foreign directory are told apart', async () => {
  await writeFile(join(folder, 'member.json'), '{"formatVersion": 1, "clusterId": "zz"}')
  await expect(readIdentity(folder)).rejects.toMatchObject({ code: 'STORE_DATA_DIR' })
  await writeFile(join(folder, 'member.json'), '{"formatVersion": 2}')
  await expect(readIdentity(folder)).rejects.toMatchObject({ code: 'STORE_FORMAT_UNKNOWN' })
  await rm(join(folder, 'member.json'))
  await mkdir(join(folder, 'member'))
  await expect(readIdentity(folder)).rejects.toMatchObject({ code: 'STORE_DATA_DIR' })
})

test('a directory is taken by one at a time', async () => {
  const unlock = await lockDataDir(join(folder, 'new'))
  await expect(lockDataDir(join(folder, 'new'))).rejects.toMatchObject({ code: 'STORE_DATA_DIR_BUSY' })
  unlock()
  ;(await lockDataDir(join(folder, 'new')))()
})
