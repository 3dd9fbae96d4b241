import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { damageInPlace } from '../derived-release.ts'
import { labMachine, labMemoryMiB, MachineLab } from '../machine-lab.ts'
import type { Story } from '../story.ts'
import { expect, until } from '../waiting.ts'

export const unknownMachine: Story = {
  name: 'unknown-machine',
  summary:
    'a machine nobody knows waits with its MAC on the screen, and boots once it is assigned; a damaged image is refused',
  budgetSeconds: 90,
  timeoutSeconds: 400,
  needs: ['vms'],
  memoryMiB: labMemoryMiB,
  allowedBadness: ['agent failure', 'file system error', 'verity error'],
  async run(context) {
    const { signal, say } = context
    const lab = await MachineLab.open(context, { image: await context.image('0.1.0'), assigned: false })
    await lab.powerOn()
    await lab.seen(/this machine waits/i, { timeoutMs: 90_000, signal })
    const mac = await lab.seen(new RegExp(`MAC +${labMachine.bootMac}`, 'i'), { timeoutMs: 20_000, signal })
    say(`the screen shows: ${mac.trim()}`)
    const found = await until('it is listed', { timeoutMs: 10_000, signal }, () =>
      lab.boot.record(labMachine.bootMac),
    )
    expect(found.state === 'discovered', `it is listed as ${found.state}`)
    expect(found.id === labMachine.bootMac.replaceAll(':', '-'), `its id is its MAC: ${found.id}`)

    // What it is going to fetch was damaged since it was signed.
    await damageInPlace(join(context.scratch, 'assets/releases', '0.1.0', 'usr.img'), 0)
    await lab.boot.operate('PUT', `/v1/machines/${found.id}`, {
      ...{ group: 'solo', name: labMachine.name, address: '10.77.0.91', role: 'store' },
    })
    await lab.seen(/MARK:kernel /, { timeoutMs: 60_000, signal })
    say('assigned, it boots')
    const reason = await lab.seen(/does not match its root hash/, {
      timeoutMs: 120_000,
      signal,
      failOn: /^$/,
    })
    say(`the console shows: ${reason.trim()}`)
    const refused = await until('the record says it', { timeoutMs: 15_000, signal }, async () => {
      const record = await lab.boot.record(labMachine.bootMac)
      return record?.state === 'failed' ? record : undefined
    })
    expect(/root hash/.test(refused.message ?? ''), `the record says why: ${refused.message}`)
    await writeFile(join(context.folder, 'record.json'), JSON.stringify(refused, null, 2))
  },
}
