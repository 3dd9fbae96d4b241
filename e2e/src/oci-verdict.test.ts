import { expect, test } from 'vitest'
import { readVerdict } from './oci-verdict.ts'

test('a skip that nobody listed is a failure', () => {
  const skips = { exe: 'read-only' }
  expect(readVerdict('PASS run_true', skips)).toEqual({ kind: 'pass', name: 'run_true', why: '' })
  expect(readVerdict('FAIL cwd: want: /tmp', skips)).toEqual({ kind: 'fail', name: 'cwd', why: 'want: /tmp' })
  expect(readVerdict('SKIP exe (no)', skips)).toEqual({ kind: 'skip', name: 'exe', why: 'read-only' })
  expect(readVerdict('SKIP cwd (no)', skips)?.kind).toBe('fail')
  expect(readVerdict('2 passed, 0 failed, 0 skipped', skips)).toBeUndefined()
})
