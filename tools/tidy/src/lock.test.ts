import { expect, test } from 'vitest'
import { lockProblems } from './lock.ts'

const committed = {
  packages: {
    '': { version: '0.1.0' },
    'node_modules/zod': { version: '4.0.0', integrity: 'sha512-a' },
    'node_modules/@biomejs/cli-win32-x64': { version: '2.0.0', integrity: 'sha512-b' },
    'node_modules/@kiln/raft': { link: true },
  },
}

test('a lock that names more than this platform installs is kept', () => {
  const installed = {
    packages: {
      'node_modules/zod': { version: '4.0.0', integrity: 'sha512-a' },
      'libs/raft': { version: '0.1.0' },
    },
  }
  expect(lockProblems(committed, installed)).toEqual([])
})

test('a package that is not locked, or came in another version or with other bytes, is told by its path', () => {
  const installed = {
    packages: {
      'node_modules/zod': { version: '4.0.1', integrity: 'sha512-c' },
      'node_modules/left-pad': { version: '1.0.0' },
      'node_modules/@biomejs/cli-win32-x64': { version: '2.0.0', integrity: 'sha512-x' },
    },
  }
  expect(lockProblems(committed, installed)).toEqual([
    'node_modules/zod: 4.0.0 is locked, 4.0.1 came',
    'node_modules/left-pad 1.0.0 is not in package-lock.json',
    'node_modules/@biomejs/cli-win32-x64 2.0.0: the integrity differs',
  ])
})
