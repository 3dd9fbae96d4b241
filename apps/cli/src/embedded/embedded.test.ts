import { expect, test } from 'vitest'
import { chooseBootEntry, countedName, parseBootEntry } from './boot-entries.ts'
import { readIpxeScript } from './ipxe-script.ts'

const settings = { mac: '52:54:00:4b:00:01', uuid: 'u', hostname: 'a b' }
const base = 'http://127.0.0.1:1/boot.ipxe'

test('the entry script chains with the labels filled in', () => {
  const script =
    // biome-ignore lint/suspicious/noTemplateCurlyInString: iPXE's settings look like this
    '#!ipxe\nchain --replace --autofree ipxe?mac=${mac:hexhyp}&h=${hostname:uristring} ||\nsleep 1\n'
  expect(readIpxeScript(script, settings, base)).toEqual({
    kind: 'chain',
    url: 'http://127.0.0.1:1/ipxe?mac=52-54-00-4b-00-01&h=a%20b',
    afterSeconds: 0,
  })
})

test('a script that waits is chained after its pause', () => {
  const script = '#!ipxe\necho Kiln: this machine waits.\nsleep 5\nchain http://x/boot.ipxe ||\n'
  expect(readIpxeScript(script, settings, base)).toMatchObject({ kind: 'chain', afterSeconds: 5 })
})

test('kernel, initrd and arguments are read, exit leaves', () => {
  const script =
    // biome-ignore lint/suspicious/noTemplateCurlyInString: iPXE's settings look like this
    '#!ipxe\nkernel http://x/vmlinuz a=1 BOOTIF=01-${mac:hexhyp} || goto failed\ninitrd --name initrd http://x/initrd || goto failed\nboot || goto failed\n'
  expect(readIpxeScript(script, settings, base)).toEqual({
    kind: 'boot',
    kernel: 'http://x/vmlinuz',
    initrds: ['http://x/initrd'],
    kernelArguments: 'a=1 BOOTIF=01-52-54-00-4b-00-01',
  })
  expect(readIpxeScript('#!ipxe\nexit 1\n', settings, base)).toEqual({ kind: 'exit' })
})

test('the newest entry is taken, one without tries left last', () => {
  const names = ['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+2.conf', 'other.conf']
  expect(chooseBootEntry(names)?.generation).toBe(2)
  expect(chooseBootEntry(['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+0-2.conf'])?.generation).toBe(1)
  expect(chooseBootEntry([])).toBeUndefined()
})

test('starting an entry on trial counts in its name, a blessed one keeps it', () => {
  expect(countedName(parseBootEntry('kiln-2-0.2.0+2.conf')!)).toBe('kiln-2-0.2.0+1-1.conf')
  expect(countedName(parseBootEntry('kiln-2-0.2.0+1-1.conf')!)).toBe('kiln-2-0.2.0+0-2.conf')
  expect(countedName(parseBootEntry('kiln-1-0.1.0-rc.1.conf')!)).toBe('kiln-1-0.1.0-rc.1.conf')
})
