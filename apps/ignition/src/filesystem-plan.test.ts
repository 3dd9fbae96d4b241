import { expect, test } from 'vitest'
import { parseBlkid, parseWipefs, planFilesystem } from './filesystem-plan.ts'

const device = '/dev/vda9'
const ext4 = { type: 'ext4', label: 'DATA', uuid: '11111111-2222-3333-4444-555555555555' }

test('an empty device is formatted, user options before label and uuid', () => {
  const spec = { device, format: 'ext4', label: 'DATA', uuid: ext4.uuid, options: ['-m', '1'] }
  expect(planFilesystem(spec, device, [])).toEqual({
    kind: 'create',
    command: 'mkfs.ext4',
    args: ['-F', '-q', '-m', '1', '-U', ext4.uuid, '-L', 'DATA', device],
  })
  expect(planFilesystem({ device, format: 'vfat', label: 'EFI' }, device, [])).toMatchObject({
    command: 'mkfs.vfat',
    args: ['-n', 'EFI', device],
  })
})

test('what is right already is kept, uuids in any case', () => {
  expect(planFilesystem({ device, format: 'ext4' }, device, [ext4])).toEqual({ kind: 'keep' })
  const spec = { device, format: 'ext4', label: 'DATA', uuid: ext4.uuid.toUpperCase() }
  expect(planFilesystem(spec, device, [ext4])).toEqual({ kind: 'keep' })
})

test('anything else that is there is refused, unless it may be wiped', () => {
  for (const spec of [
    { device, format: 'xfs' },
    { device, format: 'ext4', label: 'OTHER' },
    { device, format: 'ext4', uuid: '99999999-2222-3333-4444-555555555555' },
  ]) {
    expect(planFilesystem(spec, device, [ext4]).kind).toBe('refuse')
    expect(planFilesystem({ ...spec, wipeFilesystem: true }, device, [ext4]).kind).toBe('create')
  }
})

test('format none wipes or refuses', () => {
  expect(planFilesystem({ device, format: 'none' }, device, []).kind).toBe('keep')
  expect(planFilesystem({ device, format: 'none' }, device, [ext4]).kind).toBe('refuse')
  expect(planFilesystem({ device, format: 'none', wipeFilesystem: true }, device, [ext4]).kind).toBe('wipe')
})

test('the answer of blkid is read', () => {
  expect(parseBlkid('DEVNAME=/dev/vda1\nLABEL=MY\\ DISK\nUUID=E446-2BEC\nTYPE=vfat\n')).toEqual({
    type: 'vfat',
    label: 'MY DISK',
    uuid: 'E446-2BEC',
  })
  expect(parseBlkid('')).toBeUndefined()
})

test('of several signatures the one that fits counts, and one signature twice is one', () => {
  const zfs = { type: 'zfs_member', label: null, uuid: null }
  const found = parseWipefs(JSON.stringify({ signatures: [zfs, zfs, ext4] }))
  expect(found.map(({ type }) => type)).toEqual(['zfs_member', 'ext4'])
  expect(planFilesystem({ device, format: 'ext4', label: 'DATA' }, device, found).kind).toBe('keep')
  expect(planFilesystem({ device, format: 'xfs' }, device, found)).toMatchObject({
    kind: 'refuse',
    reason: `${device} holds zfs_member already: its type is zfs_member, not xfs`,
  })
  expect(parseWipefs('')).toEqual([])
})
