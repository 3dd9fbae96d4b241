import { defaultSeccomp } from '@kiln/oci-runtime'
import { expect, test } from 'vitest'
import { seccompOfSet } from './seccomp-set.ts'

const allow = 'SCMP_ACT_ALLOW'
const refuse = 'SCMP_ACT_ERRNO'

test('a set that is removed is all that is refused', () => {
  const profile = seccompOfSet({ mode: 'remove', errno: 'ENOSPC', calls: ['mkdir', 'mkdirat'] }, [])
  expect(profile).toMatchObject({
    defaultAction: allow,
    syscalls: [{ names: ['mkdir', 'mkdirat'], action: refuse, errnoRet: 28 }],
  })
  const more = seccompOfSet({ mode: 'remove', calls: ['@docker/default-blacklist', 'mkdir'] }, [])
  expect(more.syscalls).toHaveLength(1)
  expect(more.syscalls![0]!.names).toEqual(expect.arrayContaining(['mkdir', 'kexec_load', 'mount']))
  expect(seccompOfSet({ mode: 'remove', calls: ['@appc.io/empty'] }, []).syscalls).toEqual([])
})

test('a set that is kept is all that is allowed, on top of a set by name', () => {
  const kept = seccompOfSet({ mode: 'retain', calls: ['read', 'write'] }, [])
  expect(kept).toMatchObject({
    defaultAction: refuse,
    defaultErrnoRet: 1,
    syscalls: [{ names: ['read', 'write'], action: allow }],
  })
  const base = seccompOfSet({ mode: 'retain', calls: ['@docker/default-whitelist', 'mount'] }, [])
  expect(base.syscalls![0]).toEqual({ names: ['mount'], action: allow })
  const others = base.syscalls!.slice(1)
  expect(others.some(({ names }) => names.includes('mount'))).toBe(false)
  expect(others.length).toBe(defaultSeccomp(new Set()).syscalls!.length)
  expect(seccompOfSet({ mode: 'retain', calls: ['@appc.io/all'] }, []).defaultAction).toBe(allow)
})

test('what is no call, no set of this mode, or no error is refused by name', () => {
  const of = (mode: 'retain' | 'remove', calls: string[], errno?: string) => () =>
    seccompOfSet({ mode, calls, ...(errno === undefined ? {} : { errno }) }, [])
  expect(of('remove', ['mkdri'])).toThrow(/mkdri/)
  expect(of('remove', ['@docker/default-whitelist'])).toThrow(/default-whitelist/)
  expect(of('retain', ['@docker/default-blacklist'])).toThrow(/default-blacklist/)
  expect(of('retain', ['read'], 'EWHAT')).toThrow(/EWHAT/)
})
