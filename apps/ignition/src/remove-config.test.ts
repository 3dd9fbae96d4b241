import { Fault } from '@kiln/service'
import { expect, test } from 'vitest'
import { platformNames } from './options.ts'
import { removeConfig } from './remove-config.ts'

async function removing(argv: string[], fails = false) {
  const commands: string[][] = []
  const out = { 1: '', 2: '' }
  const code = await removeConfig(argv, {
    platforms: platformNames,
    command: async (name, args) => {
      commands.push([name, ...args])
      if (fails) throw new Fault('COMMAND_MISSING', 'vmware-rpctool is missing')
      return { code: 0, stdout: '' }
    },
    write: (descriptor, text) => {
      out[descriptor] += text
    },
  })
  return { code, commands, out }
}

test('the config and its encoding are deleted from a VMware machine', async () => {
  const { code, commands, out } = await removing(['-platform', 'vmware', '-log-to-stdout'])
  expect([code, out[1]]).toEqual([0, 'ignition-rmcfg: the config is deleted\n'])
  expect(commands).toEqual([
    ['vmware-rpctool', 'info-set guestinfo.ignition.config.data '],
    ['vmware-rpctool', 'info-set guestinfo.ignition.config.data.encoding '],
  ])
  const failed = await removing(['--platform=vmware'], true)
  expect([failed.code, failed.out[2]]).toEqual([
    1,
    'ignition-rmcfg: the config could not be deleted: vmware-rpctool is missing\n',
  ])
})

test('other platforms have nothing to delete; none and an unknown one are refused', async () => {
  for (const platform of platformNames.filter((name) => name !== 'vmware')) {
    expect(await removing(['--platform', platform])).toMatchObject({ code: 0, commands: [] })
  }
  for (const argv of [[], ['--platform', 'virtualsquare'], ['--nonsense'], ['--platform']]) {
    const { code, out } = await removing(argv)
    expect(code).toBe(2)
    expect(out[2]).toContain('usage: ignition-rmcfg')
  }
  expect((await removing(['--help'])).out[1]).toContain('--platform NAME')
})
