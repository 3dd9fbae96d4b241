import { expect, test } from 'vitest'
import {
  blessedEntryName,
  entriesToRemove,
  entryText,
  kernelsToRemove,
  parseEntryName,
  trialEntryName,
} from './entries.ts'

test('entry names carry generation, version and the tries', () => {
  expect(parseEntryName('kiln-1-0.1.0.conf')).toEqual({
    file: 'kiln-1-0.1.0.conf',
    generation: 1,
    version: '0.1.0',
  })
  expect(parseEntryName('kiln-12-0.2.0-rc.1+1-1.conf')).toMatchObject({
    generation: 12,
    version: '0.2.0-rc.1',
    triesLeft: 1,
    triesDone: 1,
  })
  expect(parseEntryName(trialEntryName(3, '1.0.0'))).toMatchObject({ triesLeft: 2, triesDone: 0 })
})

test('entries of others are left alone', () => {
  for (const name of ['debian.conf', 'kiln-x-1.conf', 'kiln-1-0.1.0.conf.new', 'kiln-1-../etc.conf'])
    expect(parseEntryName(name)).toBeUndefined()
})

test('blessing drops the counter and keeps the rest', () => {
  expect(blessedEntryName(parseEntryName('kiln-2-0.2.0+0-2.conf')!)).toBe('kiln-2-0.2.0.conf')
})

test('an entry names its slot, hash and generation', () => {
  const text = entryText({
    version: '0.2.0',
    generation: 2,
    slot: 'b',
    usrRootHash: 'ab'.repeat(32),
    usrHashOffset: 4096,
    kernelArguments: ['console=ttyS0', 'panic=10'],
    bootUrl: 'http://10.0.2.2:8080',
    machine: 'node1',
  })
  expect(text).toContain('version 2\n')
  expect(text).toContain('linux /kiln/0.2.0/vmlinuz\n')
  expect(text).toMatch(/options console=ttyS0 panic=10 kiln.slot=b kiln.generation=2 .*kiln.usr.offset=4096/)
})

test('before a slot is written every entry but the booted one goes', () => {
  const entries = ['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+0-2.conf'].map((file) => parseEntryName(file)!)
  expect(entriesToRemove(entries, 1).map((entry) => entry.file)).toEqual(['kiln-2-0.2.0+0-2.conf'])
  expect(kernelsToRemove(['0.1.0', '0.2.0'], ['0.1.0'])).toEqual(['0.2.0'])
})
