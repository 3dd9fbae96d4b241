import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { environmentLines, writeAttributes } from './machine-attributes.ts'
import { answering, simulatedRun } from './simulated-run.ts'

test('attributes are lines that a shell and systemd read as they are', () => {
  expect(environmentLines({ HOSTNAME: 'h', SSH_KEY_0: 'a "b" $c \\ `d`\nKILN_X=1' })).toBe(
    'KILN_HOSTNAME="h"\nKILN_SSH_KEY_0="a \\"b\\" \\$c \\\\ \\`d\\` KILN_X=1"\n',
  )
})

test('the platform is asked once there is a network, and a machine lives without an answer', async () => {
  const http = answering({ '/hetzner/v1/metadata/hostname': { status: 200, body: 'h' } })
  const { run, folder, said } = simulatedRun({ http })
  const metadataFile = join(folder, 'run/metadata/kiln')
  const options = { ...run.options, platform: 'hetzner' as const, metadataFile }
  await writeAttributes({ ...run, options, fetcher: { ...run.fetcher, network: false } })
  expect(existsSync(metadataFile)).toBe(false)
  await writeAttributes({ ...run, options })
  expect(readFileSync(metadataFile, 'utf8')).toBe('KILN_PLATFORM="hetzner"\nKILN_HOSTNAME="h"\n')
  const broken = answering({ '/hetzner/v1/metadata/hostname': { status: 403 } })
  await writeAttributes({ ...run, options, fetcher: { ...run.fetcher, http: broken } })
  expect(said.join('\n')).toContain('attributes cannot be read')
})
