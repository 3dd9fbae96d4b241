import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ReleaseManifest } from '@kiln/schemas'
import { createLog, Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import type { SignedRelease } from './boot-server.ts'
import type { Booted } from './decide.ts'
import { armEntry, blessEntry, disarmEntry, readEntries } from './esp.ts'
import { type InstallPorts, installRelease } from './install.ts'
import { loadProgress, saveProgress } from './state.ts'

const content: Record<string, Buffer> = {
  'usr.img': Buffer.alloc(3_000_000, 'usr image '),
  vmlinuz: Buffer.from('kernel'),
  initrd: Buffer.from('initramfs'),
}
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
const manifest: ReleaseManifest = {
  formatVersion: 1,
  version: '0.2.0',
  arch: 'x86_64',
  createdAt: '2026-01-01T00:00:00Z',
  expiresAt: '2030-01-01T00:00:00Z',
  usrRootHash: 'ab'.repeat(32),
  usrHashOffset: 4096,
  kernelArguments: ['console=ttyS0'],
  parts: Object.entries(content).map(([name, bytes]) => ({
    name,
    sizeBytes: bytes.length,
    sha256: sha256(bytes),
  })),
}
const release: SignedRelease = {
  manifest,
  bytes: Buffer.from(JSON.stringify(manifest)),
  baseUrl: 'http://boot/',
}
const booted: Booted = { version: '0.1.0', generation: 1, slot: 'a', bootId: 'boot-1', onTrial: false }
const to = { slot: 'b' as const, generation: 2, booted }

/** A machine in a folder: an ESP that boots generation 1, with the rest of an older failed install. */
function machine(openPart: InstallPorts['openPart']): InstallPorts & { folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'kiln-update-'))
  mkdirSync(join(folder, 'esp/loader/entries'), { recursive: true })
  mkdirSync(join(folder, 'esp/kiln/0.1.0'), { recursive: true })
  mkdirSync(join(folder, 'esp/kiln/0.1.5'), { recursive: true })
  writeFileSync(join(folder, 'esp/loader/entries/kiln-1-0.1.0.conf'), 'old')
  writeFileSync(join(folder, 'esp/loader/entries/kiln-2-0.1.5+0-2.conf'), 'failed')
  writeFileSync(join(folder, 'usr-a.img'), 'running')
  return {
    folder,
    espDir: join(folder, 'esp'),
    stateDir: join(folder, 'state'),
    slotPath: (slot) => join(folder, `usr-${slot}.img`),
    bootUrl: 'http://boot',
    machine: 'node1',
    openPart,
    sleep: async () => undefined,
    log: createLog('test', 'silent'),
  }
}

async function* chunks(bytes: Buffer, offset: number): AsyncGenerator<Uint8Array> {
  for (let at = offset; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}
const entryFiles = (ports: InstallPorts): string[] => readdirSync(join(ports.espDir, 'loader/entries')).sort()

const served: InstallPorts['openPart'] = async (_release, name, offset) => ({
  offset,
  body: chunks(content[name]!, offset),
})

test('an install writes the slot, the kernel and last the entry, and only the running release stays beside it', async () => {
  const ports = machine(served)
  await installRelease(release, to, ports)
  expect(readFileSync(ports.slotPath('b')).equals(content['usr.img']!)).toBe(true)
  expect(readFileSync(ports.slotPath('a'), 'utf8')).toBe('running')
  expect(readFileSync(join(ports.espDir, 'kiln/0.2.0/initrd'), 'utf8')).toBe('initramfs')
  expect(readdirSync(join(ports.espDir, 'kiln')).sort()).toEqual(['0.1.0', '0.2.0'])
  expect(entryFiles(ports)).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf.staged'])
})

test('an installed release boots only once it is armed, and no more when that is taken back', async () => {
  const ports = machine(served)
  await installRelease(release, to, ports)
  const staged = { version: '0.2.0', generation: 2 }
  for (let twice = 0; twice < 2; twice++) await armEntry(ports.espDir, staged)
  expect(entryFiles(ports)).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf'])
  for (let twice = 0; twice < 2; twice++) await disarmEntry(ports.espDir, staged)
  expect(entryFiles(ports)).toEqual(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf.staged'])
  await installRelease(release, { ...to, generation: 3 }, ports)
  expect(entryFiles(ports)).toEqual(['kiln-1-0.1.0.conf', 'kiln-3-0.2.0+2.conf.staged'])
  await expect(armEntry(ports.espDir, staged)).rejects.toMatchObject({ code: 'UPDATE_ENTRY_MISSING' })
})

test('a download cut before its first sync does not go on from where another release had got', async () => {
  const ports = machine(served)
  await saveProgress(ports.stateDir, { manifestSha256: 'of another', slot: 'b', bytes: 1_000_000 })
  let opened = 0
  ports.openPart = async (one, name, offset) => {
    if (opened++ === 0) throw new Fault('RELEASE_UNREACHABLE', 'cut')
    return served(one, name, offset)
  }
  await installRelease(release, to, ports)
  expect(readFileSync(ports.slotPath('b')).equals(content['usr.img']!)).toBe(true)
})

test('a connection that breaks long before a sync is due still gets the download on', async () => {
  let opened = 0
  const ports = machine(async (_release, name, offset) => {
    async function* body(): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks(content[name]!, offset)) {
        yield chunk
        if (name === 'usr.img') throw new Fault('RELEASE_UNREACHABLE', 'connection reset')
      }
    }
    opened += 1
    return { offset, body: body() }
  })
  await installRelease(release, to, ports)
  expect(opened).toBeGreaterThan(40)
  expect((await loadProgress(ports.stateDir))?.bytes).toBe(content['usr.img']!.length)
})

test('a download that breaks resumes where it was synced and fetches nothing twice', async () => {
  let sent = 0
  let breaks = 3
  const ports = machine(async (_release, name, offset) => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunks(content[name]!, offset)) {
        if (name === 'usr.img' && breaks > 0 && sent > 1_000_000 * (4 - breaks)) {
          breaks -= 1
          return
        }
        if (name === 'usr.img') sent += chunk.length
        yield chunk
      }
    }
    return { offset, body: broken() }
  })
  await installRelease(release, to, ports)
  expect(breaks).toBe(1)
  expect(sent).toBe(content['usr.img']!.length)
})

test('a corrupt image is refused before any entry points to it, and the next try starts anew', async () => {
  let corrupt = true
  const ports = machine(async (_release, name, offset) => {
    const bytes = Buffer.from(content[name]!)
    if (corrupt) bytes[1_000_000 % bytes.length]! ^= 1
    return { offset, body: chunks(bytes, offset) }
  })
  await expect(installRelease(release, to, ports)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
  expect((await readEntries(ports.espDir)).map((entry) => entry.generation)).toEqual([1])
  corrupt = false
  await installRelease(release, to, ports)
  expect(entryFiles(ports)).toHaveLength(2)
})

test('an image longer than its manifest is refused', async () => {
  const ports = machine(async (_release, name, offset) => ({
    offset,
    body: chunks(Buffer.concat([content[name]!, Buffer.from('more')]), offset),
  }))
  await expect(installRelease(release, to, ports)).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' })
})

test('a server that stays away ends the install with a clear fault', async () => {
  const ports = machine(async () => {
    throw new Fault('RELEASE_UNREACHABLE', 'fetching usr.img')
  })
  await expect(installRelease(release, to, ports)).rejects.toMatchObject({ code: 'RELEASE_UNREACHABLE' })
})

test('a cut at any point of an install leaves the running release the only one that boots, or the new one whole', async () => {
  for (let cut = 0; cut < 60; cut++) {
    let left = cut
    const ports = machine(async (_release, name, offset) => {
      async function* body(): AsyncGenerator<Uint8Array> {
        for await (const chunk of chunks(content[name]!, offset)) {
          if (left-- <= 0) throw new Error('power cut')
          yield chunk
        }
      }
      return { offset, body: body() }
    })
    ports.sleep = async () => {
      throw new Error('power cut')
    }
    const finished = await installRelease(release, to, ports).then(
      () => true,
      () => false,
    )
    if (finished) await armEntry(ports.espDir, { version: '0.2.0', generation: 2 })
    const entries = (await readEntries(ports.espDir)).map((entry) => entry.generation)
    expect(entries).toEqual(finished ? [1, 2] : [1])
    await installRelease(release, to, { ...ports, openPart: served, sleep: async () => undefined })
    expect(readFileSync(ports.slotPath('b')).equals(content['usr.img']!)).toBe(true)
    if (finished) break
  }
})

test('blessing drops the counter, once or twice', async () => {
  const ports = machine(served)
  await installRelease(release, to, ports)
  await armEntry(ports.espDir, { version: '0.2.0', generation: 2 })
  await blessEntry(ports.espDir, 2)
  await blessEntry(ports.espDir, 2)
  expect((await readEntries(ports.espDir)).map((entry) => entry.file)).toContain('kiln-2-0.2.0.conf')
})

test('what the config changed of the kernel arguments holds for every later release', async () => {
  const ports = machine(served)
  const path = join(ports.espDir, 'kiln-arguments.json')
  writeFileSync(
    path,
    JSON.stringify({ formatVersion: 1, shouldExist: ['debug'], shouldNotExist: ['console=ttyS0'] }),
  )
  await installRelease(release, to, ports)
  const file = join(ports.espDir, 'loader/entries/kiln-2-0.2.0+2.conf.staged')
  expect(readFileSync(file, 'utf8')).toMatch(/^options debug kiln\.slot=b /m)

  writeFileSync(path, '{"formatVersion":1')
  await expect(installRelease(release, to, ports)).rejects.toMatchObject({
    code: 'KERNEL_ARGUMENTS_DAMAGED',
    remedy: expect.stringContaining('shouldExist'),
  })
})
