import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type CpioEntry, packNewc } from './newc.ts'

const hasCpio = !spawnSync('cpio', ['--version']).error
if (!hasCpio) console.log('skipped: cpio is not installed on this host')

const entries: CpioEntry[] = [
  { kind: 'link', path: 'bin/sh', target: 'busybox' },
  { kind: 'file', path: 'init', mode: 0o755, content: Buffer.from('#!/bin/sh\n') },
  { kind: 'directory', path: 'bin' },
  { kind: 'file', path: 'bin/busybox', mode: 0o644, content: Buffer.from('12345') },
]

test('the order of the entries does not change the bytes', () => {
  expect(packNewc(entries).equals(packNewc([...entries].reverse()))).toBe(true)
})

test('the header of a file is what the format says', () => {
  const packed = packNewc([{ kind: 'file', path: 'init', mode: 0o755, content: Buffer.from('hello') }])
  // magic, inode, mode, uid, gid, links, time, size, device (4 fields), length of the name, checksum
  expect(packed.subarray(0, 110).toString()).toBe(
    '070701' +
      ['00000001', '000081ed', '00000000', '00000000', '00000001', '00000000', '00000005'].join('') +
      ['00000000', '00000000', '00000000', '00000000', '00000005', '00000000'].join(''),
  )
  expect(packed.subarray(110, 116).toString('latin1')).toBe('init\0\0')
  expect(packed.subarray(116, 124).toString('latin1')).toBe('hello\0\0\0')
  expect(packed.length % 4).toBe(0)
})

test.skipIf(!hasCpio)('cpio reads what we wrote', () => {
  const dir = mkdtempSync(join(tmpdir(), 'newc-'))
  try {
    const unpacked = spawnSync('cpio', ['-idm', '--quiet', '--no-preserve-owner'], {
      cwd: dir,
      input: packNewc(entries),
    })
    expect(unpacked.status).toBe(0)
    expect(readFileSync(join(dir, 'bin/busybox'), 'utf8')).toBe('12345')
    expect(readlinkSync(join(dir, 'bin/sh'))).toBe('busybox')
    expect(statSync(join(dir, 'init')).mode & 0o777).toBe(0o755)
  } finally {
    rmSync(dir, { recursive: true })
  }
})
