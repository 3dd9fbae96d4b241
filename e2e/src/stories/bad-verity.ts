import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ReleaseManifest } from '@kiln/schemas'
import { damageBlocks, deriveRelease } from '../derived-release.ts'
import { seeFallback } from '../fallback.ts'
import type { Story } from '../story.ts'
import { expect } from '../waiting.ts'

const version = '0.9.1'

export const badVerity: Story = {
  name: 'bad-verity',
  summary: 'an image whose blocks do not match its verity tree falls back; the other machines are untouched',
  budgetSeconds: 240,
  timeoutSeconds: 900,
  needs: ['vms'],
  fixture: 'three-machines',
  allowedBadness: [
    'kernel panic',
    'verity error',
    'file system error',
    'segmentation fault',
    'failed unit',
    'agent failure',
  ],
  async run(context) {
    const cluster = await context.cluster()
    const from = await context.image('0.1.0')
    const { usrHashOffset } = ReleaseManifest.parse(
      JSON.parse(await readFile(join(from, 'manifest.json'), 'utf8')),
    )
    const folder = await deriveRelease({
      from,
      to: join(context.scratch, version),
      version,
      damage: (path) => damageBlocks(path, usrHashOffset),
    })
    const reason = await seeFallback(context, cluster, { version, folder, timeoutMs: 600_000 })
    expect(/did not reach the health gate/.test(reason), `the reason tells what happened: ${reason}`)
  },
}
