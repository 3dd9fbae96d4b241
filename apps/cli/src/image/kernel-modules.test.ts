import { expect, test } from 'vitest'
import { findModules, moduleName, parseModulesDep, withDependencies } from './kernel-modules.ts'

const table = parseModulesDep(
  'kernel/drivers/md/dm-verity.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko\n' +
    'kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko\nkernel/drivers/md/dm-mod.ko:\nkernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz\nkernel/fs/fat/fat.ko.xz:\n',
)

test('modules come with everything they depend on, once and in one order', () => {
  expect(withDependencies(table, ['kernel/drivers/md/dm-verity.ko'])).toEqual([
    'kernel/drivers/md/dm-bufio.ko',
    'kernel/drivers/md/dm-mod.ko',
    'kernel/drivers/md/dm-verity.ko',
  ])
})

test('a module is found by its name with dashes or underscores, compressed or not', () => {
  expect(moduleName('kernel/drivers/md/dm-verity.ko.zst')).toBe('dm_verity')
  expect(findModules(table, ['dm_verity', 'vfat'])).toEqual({
    files: ['kernel/drivers/md/dm-verity.ko', 'kernel/fs/fat/vfat.ko.xz'],
    missing: [],
  })
})

test('names the kernel does not have are reported', () => {
  expect(findModules(table, ['nothing']).missing).toEqual(['nothing'])
})
