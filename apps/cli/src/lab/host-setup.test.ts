import { expect, test } from 'vitest'
import { ensureHostPackages, type PackageHost } from './host-setup.ts'

const report = { note: () => undefined, event: () => undefined, live: () => undefined }

function host(given: Partial<PackageHost> & { lacks: string[] }): PackageHost & { ran: string[][] } {
  const ran: string[][] = []
  return {
    ran,
    root: true,
    apt: true,
    missing: async () => (ran.some(([command]) => command === 'install') ? [] : given.lacks),
    aptGet: async (args) => void ran.push(args),
    ...given,
  }
}

test('nothing is installed on a host that lacks nothing', async () => {
  const complete = host({ lacks: [] })
  expect(await ensureHostPackages(complete, report)).toBeUndefined()
  expect(complete.ran).toEqual([])
})

test('as root the missing packages are installed, and said', async () => {
  const bare = host({ lacks: ['ovmf', 'qemu-system-x86'] })
  expect(await ensureHostPackages(bare, report)).toBe('installed 2 Debian packages')
  expect(bare.ran.at(-1)).toEqual([
    ...['install', '-y', '-qq', '--no-install-recommends'],
    ...['ovmf', 'qemu-system-x86'],
  ])
})

test('without root nothing is tried and the command to run is named', async () => {
  const user = host({ lacks: ['ovmf'], root: false })
  await expect(ensureHostPackages(user, report)).rejects.toMatchObject({
    code: 'HOST_PACKAGES',
    remedy: 'run as root: apt-get install ovmf',
  })
  expect(user.ran).toEqual([])
})

test('apt that installs nothing is a fault', async () => {
  const broken = host({ lacks: ['ovmf'], missing: async () => ['ovmf'] })
  await expect(ensureHostPackages(broken, report)).rejects.toMatchObject({ code: 'HOST_PACKAGES' })
})

test('package lists that cannot be renewed are no reason to stop', async () => {
  const offline = host({ lacks: ['ovmf'] })
  const { aptGet } = offline
  offline.aptGet = async (args) => {
    if (args[0] === 'update') throw new Error('no network')
    await aptGet(args)
  }
  expect(await ensureHostPackages(offline, report)).toBe('installed 1 Debian packages')
})
