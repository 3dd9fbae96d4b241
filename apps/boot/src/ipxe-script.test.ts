import { expect, test } from 'vitest'
import { releaseImages, withMachineArguments } from './boot-images.ts'
import {
  diskScript,
  entryScript,
  installScript,
  ipxeSetting,
  plainBootScript,
  waitScript,
} from './ipxe-script.ts'
import { discovered } from './machine-state.ts'

const base = 'http://10.0.2.2:8080'
const golden = (name: string): string => `../testdata/${name}.ipxe`

test('the entry script hands on to /ipxe and never gives up', async () => {
  await expect(entryScript()).toMatchFileSnapshot(golden('boot'))
})

test('a matchbox profile gets its script as it is', async () => {
  const images = {
    kernel: '/assets/vmlinuz',
    initrd: ['/assets/a.gz', '/assets/b.gz'],
    args: ['quiet', 'a=$x'],
  }
  await expect(plainBootScript(images)).toMatchFileSnapshot(golden('matchbox'))
})

test('an install from a release carries every argument of the seams', async () => {
  const record = { ...discovered({ id: 'node1', mac: '52:54:00:4b:00:01', uuid: '', now: '' }), id: 'node1' }
  const manifest = {
    formatVersion: 1 as const,
    version: '0.1.0',
    arch: 'x86_64' as const,
    createdAt: '',
    expiresAt: '',
    usrRootHash: 'ab'.repeat(32),
    usrHashOffset: 4096,
    kernelArguments: ['console=ttyS0', 'net.ifnames=0', 'panic=10', 'quiet'],
    parts: [{ name: 'usr.img', sizeBytes: 8192, sha256: '00' }],
  }
  const images = withMachineArguments(releaseImages({ manifest, base, args: ['kiln.disk=/dev/vda'] }), {
    record,
    base,
    reinstall: true,
  })
  await expect(installScript({ images, title: 'installing node1', base })).toMatchFileSnapshot(
    golden('install'),
  )
})

test('arguments of the profile are not overwritten', () => {
  const record = discovered({ id: 'node1', mac: '52:54:00:4b:00:01', uuid: '', now: '' })
  const images = { kernel: 'k', initrd: [], args: ['ip=dhcp', 'kiln.boot=http://other'] }
  const { args } = withMachineArguments(images, { record, base, reinstall: false })
  expect(args.filter((arg) => /^(ip|kiln\.boot)=/.test(arg))).toEqual(images.args)
  expect(args.join(' ')).not.toContain('kiln.reinstall')
})

test('a waiting machine shows who it is and asks again; no text from outside becomes a command', async () => {
  const message = `no group\nchain http://evil ${ipxeSetting('net0/mac')} || "x"`
  await expect(waitScript({ message, base, seconds: 5 })).toMatchFileSnapshot(golden('wait'))
})

test('an installed machine leaves iPXE with a status that lets the firmware go on', () => {
  expect(diskScript('node1 is installed')).toBe('#!ipxe\necho Kiln: node1 is installed\nexit 1\n')
})
