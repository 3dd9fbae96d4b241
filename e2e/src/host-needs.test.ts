import { expect, test } from 'vitest'
import { missingPackages, unmetNeed } from './host-needs.ts'
import { MemoryShelf } from './memory-shelf.ts'

const nothing = { root: false, searchPath: '/nonexistent', exists: () => false }

test('packages that are not there are missing, by program or by file', () => {
  const packages = ['dnsmasq-base', 'ipxe']
  expect(missingPackages({ needs: [], packages }, nothing)).toEqual(packages)
  expect(missingPackages({ needs: [], packages }, { ...nothing, exists: () => true })).toEqual([
    'dnsmasq-base',
  ])
  expect(missingPackages({ needs: ['vms'] }, nothing)).toContain('qemu-system-x86')
})

test('a file beside the checkout that is not there is a reason', async () => {
  const story = {
    name: 's',
    summary: 's',
    budgetSeconds: 1,
    timeoutSeconds: 1,
    needs: [],
    run: async () => undefined,
  }
  const besides = ['shared/script.sh']
  expect(await unmetNeed({ ...story, besides }, nothing, () => undefined)).toBe(
    'needs shared/script.sh beside the checkout',
  )
  expect(
    await unmetNeed({ ...story, besides }, { ...nothing, exists: () => true }, () => undefined),
  ).toBeUndefined()
})

test('memory is promised once and can be given back once', () => {
  const shelf = new MemoryShelf(3_000)
  const release = shelf.reserve(2_000)
  expect(release).toBeDefined()
  expect(shelf.reserve(1_001)).toBeUndefined()
  release?.()
  release?.()
  expect(shelf.freeMiB).toBe(3_000)
})
