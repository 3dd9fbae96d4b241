import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { readFallbackReason, writeGateNote } from './gate-note.ts'
import { saveState } from './state.ts'

const script = join(import.meta.dirname, '../../../infra/image/usr/lib/kiln/health-deadline')
const attempt = { version: '0.2.0', generation: 2, bootId: 'boot-1' }

type Given = { entries?: string[]; attempt?: typeof attempt }

/** Runs the script for a machine in a folder; true when it rebooted. */
async function reboots(given: Given): Promise<boolean> {
  return (await runScript(given)).rebooted
}

async function runScript(given: Given): Promise<{ rebooted: boolean; stateDir: string }> {
  const root = mkdtempSync(join(tmpdir(), 'kiln-deadline-'))
  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  put('proc/cmdline', 'quiet kiln.slot=b kiln.generation=2\n')
  put('dev/console', '')
  put('proc/sys/kernel/random/boot_id', 'boot-2\n')
  put('bin/systemctl', '#!/bin/sh\necho "systemctl $*"\n')
  chmodSync(join(root, 'bin/systemctl'), 0o755)
  if (given.entries) mkdirSync(join(root, 'boot/loader/entries'), { recursive: true })
  for (const name of given.entries ?? []) put(join('boot/loader/entries', name), '')
  const stateDir = join(root, 'var/lib/kiln/update')
  await saveState(stateDir, {
    formatVersion: 1,
    generationMax: 2,
    failures: [],
    ...(given.attempt ? { attempt: given.attempt } : {}),
  })
  const env = { PATH: `${join(root, 'bin')}:${process.env['PATH']}` }
  const said = execFileSync('sh', [script, root], { env, encoding: 'utf8' })
  return { rebooted: said.includes('systemctl reboot --force'), stateDir }
}

test('only a boot whose entry still counts its tries falls back at the deadline', async () => {
  expect(await reboots({ entries: ['kiln-1-0.1.0.conf', 'kiln-2-0.2.0+1-1.conf'], attempt })).toBe(true)
  expect(await reboots({ entries: ['kiln-2-0.2.0.conf', 'kiln-3-0.3.0+2.conf'], attempt })).toBe(false)
  expect(await reboots({ entries: ['kiln-2-0.2.0.conf', 'kiln-2-0.2.0+2.conf.staged'] })).toBe(false)
})

test('an image on trial that cannot mount the ESP falls back too, a proven one stays', async () => {
  expect(await reboots({ attempt })).toBe(true)
  expect(await reboots({ attempt: { ...attempt, generation: 1 } })).toBe(false)
  expect(await reboots({})).toBe(false)
})

test('a boot that its deadline ends says so to the next one; others say nothing', async () => {
  const ended = await runScript({ entries: ['kiln-2-0.2.0+1-1.conf'], attempt })
  await writeGateNote(ended.stateDir, 2, { bootId: 'boot-2', problems: ['it is red'], settling: false })
  expect(await readFallbackReason(ended.stateDir, 2, 1)).toBe(
    'health gate stayed red until the deadline in 1 boots: it is red',
  )
  const proven = await runScript({ entries: ['kiln-2-0.2.0.conf'] })
  expect(await readFallbackReason(proven.stateDir, 2, 1)).toMatch(/^did not reach/)
})
