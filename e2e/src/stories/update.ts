import { DownTimes, overlaps } from '../down-times.ts'
import { publish, settled } from '../rollout.ts'
import { StoreWriter } from '../store-writer.ts'
import type { Story } from '../story.ts'
import { expect } from '../waiting.ts'

/** Release that machines are updated to. */
export const secondVersion = '0.2.0'

export const update: Story = {
  name: 'update',
  summary: 'a second image goes over three machines one at a time, while a client writes to the store',
  budgetSeconds: 480,
  timeoutSeconds: 1_900,
  needs: ['vms'],
  fixture: 'three-machines',
  async run(context) {
    const { signal, figure, say } = context
    const folder = await context.image(secondVersion)
    const cluster = await context.cluster()
    const writer = new StoreWriter(cluster.store, '/e2e/update/')
    context.onEnd(() => writer.stop())
    const down = new DownTimes()
    for (const machine of cluster.machines) {
      const off = machine.console.onLine((line) => down.line(machine.name, line, performance.now()))
      context.onEnd(async () => off())
    }

    const began = performance.now()
    await publish(cluster, folder, signal)
    const statuses = await settled(cluster, secondVersion, { timeoutMs: 1_800_000, signal })
    const verdict = await writer.finish()
    figure('update of three', `${Math.round((performance.now() - began) / 1000)} s`)
    figure('acknowledged', `${verdict.acknowledged}, lost ${verdict.lost.length}`)
    figure('longest gap', `${(verdict.longestGapMs / 1000).toFixed(1)} s`)
    for (const time of down.times) {
      const seconds = time.toMs === undefined ? '?' : Math.round((time.toMs - time.fromMs) / 1000)
      say(`${time.machine} was down for ${seconds} s`)
    }

    expect(verdict.lost.length === 0, `acknowledged writes are lost: ${verdict.lost.slice(0, 5).join(', ')}`)
    expect(
      statuses.every(({ slot }) => slot === 'b'),
      'every machine runs from slot b',
    )
    const rebooted = new Set(down.times.map(({ machine }) => machine))
    expect(rebooted.size === cluster.machines.length, 'every machine rebooted')
    expect(down.times.length === rebooted.size, 'no machine rebooted twice')
    const together = overlaps(down.times)
    expect(
      together.length === 0,
      `${together.map(([one, two]) => `${one.machine} and ${two.machine}`).join(', ')} were down at once`,
    )
  },
}
