import { expect, test } from 'vitest'
import { stringify } from 'yaml'
import { parseIgnition } from '../ignition-parse.ts'
import { parsePod } from '../pod.ts'
import { translateButane } from './translate.ts'

function translate(bootDevice: object, version: string) {
  const text = stringify({ variant: 'fcos', version, boot_device: bootDevice })
  return translateButane(text, { documents: { parseIgnition, parsePod } })
}

/** Level and path below `boot_device` of each finding. */
const findings = (bootDevice: object, version = '1.6.0'): string[] =>
  translate(bootDevice, version).problems.map(
    ({ severity, path }) => `${severity} ${path.replace('$.boot_device.', '')}`,
  )

const storageOf = (bootDevice: object, version = '1.6.0') => {
  const result = translate(bootDevice, version)
  return result.ok ? result.config.storage : undefined
}

test.each<[string, object, string]>([
  ['s390x-eckd', { device: '/dev/dasda', cex: { enabled: true } }, '/dev/dasda2'],
  ['s390x-zfcp', { device: '/dev/sda', tpm2: true }, '/dev/sda4'],
  ['s390x-virt', { tpm2: true }, '/dev/disk/by-partlabel/root'],
  ['ppc64le', { tpm2: true }, '/dev/disk/by-partlabel/root'],
])('on %s the root is encrypted where the layout has it', (layout, luks, device) => {
  expect(findings({ layout, luks })).toEqual([])
  const storage = storageOf({ layout, luks })
  expect(storage?.luks?.map((volume) => volume.device)).toEqual([device])
  expect(storage?.filesystems?.map((filesystem) => filesystem.device)).toEqual(['/dev/mapper/root'])
})

test.each<[string, string[], number]>([
  ['x86_64', ['bios-1', 'esp-1', 'boot-1', 'root-1'], 4],
  ['aarch64', ['reserved-1', 'esp-1', 'boot-1', 'root-1'], 4],
  ['ppc64le', ['prep-1', 'reserved-1', 'boot-1', 'root-1'], 2],
])('a mirror on %s', (layout, labels, filesystems) => {
  const devices = ['/dev/a', '/dev/b']
  const storage = storageOf({ layout, mirror: { devices } }, '1.7.0')
  expect(storage?.disks?.map((disk) => disk.device)).toEqual(devices)
  expect(storage?.disks?.[0]?.partitions?.map(({ label }) => label)).toEqual(labels)
  expect(storage?.raid?.map(({ name }) => name)).toEqual(['md-boot', 'md-root'])
  expect(storage?.filesystems).toHaveLength(filesystems)
})

test.each<[object, string[]]>([
  [{ layout: 'sparc' }, ['error layout']],
  [{ layout: 'constructor', luks: { tpm2: true } }, ['error layout']],
  [{ layout: 's390x-eckd' }, ['error layout']],
  [{ layout: 's390x-eckd', luks: { device: '/dev/sda', tpm2: true } }, ['error layout']],
  [{ layout: 's390x-zfcp', luks: { device: '/dev/dasda', tpm2: true } }, ['error layout']],
  [
    {
      layout: 's390x-zfcp',
      luks: { device: '/dev/sda', tpm2: true },
      mirror: { devices: ['/dev/a', '/dev/b'] },
    },
    ['error layout'],
  ],
  [{ layout: 'x86_64', luks: { device: '/dev/sda', cex: { enabled: true } } }, ['error layout']],
  [{ luks: { device: '/dev/sda', cex: { enabled: true } } }, ['error luks.cex']],
  [
    { layout: 's390x-eckd', luks: { device: '/dev/dasda', cex: { enabled: true }, tpm2: true } },
    ['error luks'],
  ],
])('the boot device %j', (bootDevice, expected) => {
  expect(findings(bootDevice)).toEqual(expected)
})
