import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLog } from '@kiln/service'
import { expect, test } from 'vitest'
import { watchReprovision } from './reprovision.ts'

/** An ESP with a boot loader, watched for as many looks as there are answers. */
async function watched(answers: (boolean | Error)[]) {
  const espDir = mkdtempSync(join(tmpdir(), 'kiln-esp-'))
  const folder = join(espDir, 'EFI/BOOT')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'BOOTX64.EFI'), 'loader')
  const stop = new AbortController()
  const seen: string[] = []
  const left = [...answers]
  await watchReprovision(
    {
      espDir,
      lookMs: 30_000,
      wanted: async () => {
        const answer = left.shift()!
        if (answer instanceof Error) throw answer
        return answer
      },
      sleep: async (ms) => {
        expect(ms).toBe(30_000)
        seen.push(readdirSync(folder).join())
        if (left.length === 0) stop.abort()
      },
      log: createLog('test', 'silent'),
    },
    stop.signal,
  )
  return { seen, folder }
}

test('the boot loader is hidden once the machine is set to reprovision, and not before', async () => {
  const { seen, folder } = await watched([false, new Error('away'), true, true])
  expect(seen).toEqual(['BOOTX64.EFI', 'BOOTX64.EFI', 'reprovision.efi', 'reprovision.efi'])
  expect(readFileSync(join(folder, 'reprovision.efi'), 'utf8')).toBe('loader')
  rmSync(folder, { recursive: true })
})

test('the boot loader comes back when reprovisioning is withdrawn, and only then', async () => {
  const { seen, folder } = await watched([true, new Error('away'), false, false])
  expect(seen).toEqual(['reprovision.efi', 'reprovision.efi', 'BOOTX64.EFI', 'BOOTX64.EFI'])
  expect(readFileSync(join(folder, 'BOOTX64.EFI'), 'utf8')).toBe('loader')
  rmSync(folder, { recursive: true })
})
