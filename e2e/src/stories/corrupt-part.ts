import { join } from 'node:path'
import type { Cluster } from '../cluster.ts'
import { damageInPlace, deriveRelease, signWithStrangersKey } from '../derived-release.ts'
import { channel, halted, publish } from '../rollout.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect } from '../waiting.ts'

/** Somewhere in the middle of the image. */
const damagedOffset = 40 * 1024 * 1024

export const corruptPart: Story = {
  name: 'corrupt-part',
  summary: 'a release with a wrong signature or a damaged part is refused, and everybody is told why',
  budgetSeconds: 180,
  timeoutSeconds: 600,
  needs: ['vms'],
  fixture: 'one-machine',
  async run(context) {
    const { signal } = context
    const from = await context.image('0.1.0')
    const cluster = await context.cluster()
    const before = (await cluster.statuses()).get('node1')
    const derive = (version: string): Promise<string> =>
      deriveRelease({ from, to: join(context.scratch, version), version })

    await publishDamaged(context, cluster, await derive('0.8.2'), async () => {
      await signWithStrangersKey(staged(cluster, '0.8.2'))
      // The boot server itself does not publish what no release key signed.
      const refused = await cluster.kiln(['update', 'publish', '0.8.2'], { signal, mayFail: true })
      expect(refused.code !== 0, 'a release with a wrong signature is published')
      expect(
        /RELEASE_SIGNATURE_INVALID/.test(refused.stderr),
        `the refusal has a code: ${refused.stderr.trim()}`,
      )
    })
    const signature = await halted(cluster, '0.8.2', { timeoutMs: 120_000, signal })
    context.say(`halted: ${signature}`)
    expect(/RELEASE_SIGNATURE_INVALID/.test(signature), `the halt has the code of a signature: ${signature}`)

    await publishDamaged(context, cluster, await derive('0.8.3'), () =>
      damageInPlace(join(staged(cluster, '0.8.3'), 'usr.img'), damagedOffset),
    )
    const damaged = await halted(cluster, '0.8.3', { timeoutMs: 300_000, signal })
    context.say(`halted: ${damaged}`)
    expect(/IMAGE_CORRUPT/.test(damaged), `the halt has the code of a damaged image: ${damaged}`)

    const after = (await cluster.statuses()).get('node1')
    expect(after?.bootId === before?.bootId, 'the machine did not reboot')
    expect((await channel(cluster)).state === 'halted', 'the rollout stays halted')
  },
}

const staged = (cluster: Cluster, version: string): string =>
  join(cluster.state, 'boot/assets/releases', version)

/** Publishes a good release and damages it before the machine, which stands still meanwhile, can see it. */
async function publishDamaged(
  { signal }: StoryContext,
  cluster: Cluster,
  folder: string,
  damage: () => Promise<void>,
): Promise<void> {
  await cluster.ask({ command: 'power', machine: 'node1', action: 'pause' })
  try {
    await publish(cluster, folder, signal)
    await damage()
  } finally {
    await cluster.ask({ command: 'power', machine: 'node1', action: 'resume' })
  }
}
