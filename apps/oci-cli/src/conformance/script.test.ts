import { expect, test } from 'vitest'
import { missing, readVerdict } from './script.ts'

test('a skip that nobody listed is a failure', () => {
  const skips = { cgroup_unified: 'needs cgroup v2' }
  expect(readVerdict('PASS run_true', skips)).toEqual({ kind: 'pass', name: 'run_true', why: '' })
  expect(readVerdict('SKIP cgroup_unified (unified needs cgroup v2)', skips)).toEqual({
    kind: 'skip',
    name: 'cgroup_unified',
    why: 'needs cgroup v2',
  })
  expect(readVerdict('SKIP seccomp_args (no)', skips)?.kind).toBe('fail')
  expect(readVerdict('FAIL cwd: want: /tmp', skips)).toEqual({ kind: 'fail', name: 'cwd', why: 'want: /tmp' })
  expect(readVerdict('195 passed, 0 failed, 0 skipped', skips)).toBeUndefined()
})

test('what is not installed is named with its package', () => {
  const run = { script: 'no-such.sh', args: [], tools: { 'no-such-tool': 'no-such-package' }, skips: {} }
  expect(missing(run, '/nowhere').join('\n')).toContain('install no-such-package')
})
