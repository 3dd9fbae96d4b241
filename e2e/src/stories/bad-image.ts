import { seeFallback } from '../fallback.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect } from '../waiting.ts'

/** Seconds after which a boot on trial is given up; the image's own deadline is longer than a test should wait. */
const deadlineSeconds = 100

const shared = {
  budgetSeconds: 240,
  timeoutSeconds: 900,
  needs: ['vms'],
  fixture: 'one-machine',
} as const

const fallbackTimeoutMs = 700_000

export const badUnhealthy: Story = {
  ...shared,
  name: 'bad-unhealthy',
  summary: 'an image whose health gate stays red falls back at the deadline',
  budgetSeconds: 360,
  allowedBadness: ['failed unit', 'agent failure'],
  async run(context) {
    const cluster = await context.cluster()
    const folder = '/etc/systemd/system/kiln-health-deadline.timer.d'
    const { code, output } = await cluster.shell(
      'node1',
      `mkdir -p ${folder} && printf '[Timer]\\nOnBootSec=\\nOnBootSec=${deadlineSeconds}s\\n' > ${folder}/90-e2e.conf`,
      context,
    )
    expect(code === 0, `the deadline can be set: ${output}`)
    const reason = await tryVariant(context, '0.9.2', 'bad-unhealthy')
    expect(
      /health gate stayed red/.test(reason) && /kiln-runtime/.test(reason),
      `the reason is told: ${reason}`,
    )
  },
}

export const badPanic: Story = {
  ...shared,
  name: 'bad-panic',
  summary: 'an image whose kernel panics falls back',
  allowedBadness: ['kernel panic', 'kernel oops', 'failed unit', 'agent failure'],
  async run(context) {
    const reason = await tryVariant(context, '0.9.3', 'bad-panic')
    expect(
      /kernel panic/.test(reason) && !/stayed red/.test(reason),
      `the reason is the panic, not the gate: ${reason}`,
    )
  },
}

export const badHang: Story = {
  ...shared,
  name: 'bad-hang',
  summary: 'an image whose PID 1 hangs is reset by the watchdog and falls back',
  allowedBadness: [
    'kernel panic',
    'kernel oops',
    'lockup',
    'failed unit',
    'segmentation fault',
    'agent failure',
  ],
  async run(context) {
    const reason = await tryVariant(context, '0.9.4', 'bad-hang')
    expect(
      /hang/.test(reason) && !/stayed red/.test(reason),
      `the reason is the hang, not the gate: ${reason}`,
    )
  },
}

async function tryVariant(context: StoryContext, version: string, variant: string): Promise<string> {
  const folder = await context.image(version, variant)
  const cluster = await context.cluster()
  return await seeFallback(context, cluster, { version, folder, timeoutMs: fallbackTimeoutMs })
}
