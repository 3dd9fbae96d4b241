import { parseMark } from '@kiln/vm'
import type { Story } from '../story.ts'
import { expect, until } from '../waiting.ts'

export const install: Story = {
  name: 'install',
  summary: 'an empty disk is installed over the network; then it boots with the boot server gone',
  budgetSeconds: 240,
  timeoutSeconds: 900,
  needs: ['vms'],
  fixture: 'one-machine',
  async run({ cluster: boot, figure, say, signal }) {
    const cluster = await boot()
    const [machine] = cluster.machines
    expect(machine, 'the cluster has a machine')
    const [record] = await cluster.records()
    expect(record?.state === 'installed', `the boot server calls the machine ${record?.state}`)
    const first = machine.console.lines
    for (const stage of ['fetch', 'disks', 'image', 'files', 'switch-root', 'ready']) {
      expect(
        first.some((line) => line.includes(`MARK:${stage} `)),
        `the console shows the stage ${stage}`,
      )
    }
    figure('install', `${readySeconds(first)} s after the kernel`)
    figure('agent and stages but the image, CPU in the guest', `${stagesCpu(first).toFixed(1)} s`)
    figure('install CPU', `${Math.round(await cluster.cpuSeconds(machine.name))} s`)

    const before = await cluster.store.put('/e2e/install', 'written before the reboot')
    await cluster.shutDown(machine.name, signal)
    say('shut down')
    await cluster.ask({ command: 'boot-server', action: 'stop' })
    const isGone = await fetch(`${cluster.bootUrl}/healthz`).then(
      () => false,
      () => true,
    )
    expect(isGone, 'the boot server is stopped')

    const mark = machine.console.mark
    const began = performance.now()
    await cluster.switchOn(machine.name)
    const ready = await machine.console.waitFor(/MARK:ready /, { timeoutMs: 400_000, since: mark, signal })
    figure('second boot', `${Math.round((performance.now() - began) / 1000)} s`)
    figure('second boot CPU', `${Math.round(await cluster.cpuSeconds(machine.name))} s`)
    expect(/slot=a/.test(ready), 'it runs from slot a')
    const second = machine.console.lines.slice(mark)
    expect(!second.some((line) => line.includes('MARK:fetch ')), 'nothing was fetched')
    const kept = await until('the store answers', { timeoutMs: 30_000, signal }, () =>
      cluster.store.get('/e2e/install'),
    )
    expect(kept.modRevision === before.revision, 'what was written before is there, of the same revision')
    await cluster.ask({ command: 'boot-server', action: 'start' })
    await until('the boot server serves again', { timeoutMs: 30_000, signal }, () => cluster.records())
  },
}

function readySeconds(lines: readonly string[]): number {
  const line = lines.find((one) => one.includes('MARK:ready '))
  return Math.round(Number(/uptime=([\d.]+)/.exec(line ?? '')?.[1] ?? 0))
}

/** Processor time in seconds of the Ignition agent, its start included, without the stage that writes the image. */
function stagesCpu(lines: readonly string[]): number {
  const spent = (stage: string): number => {
    const done = lines
      .map(parseMark)
      .find((mark) => mark?.stage === stage && mark.fields['status'] === 'done')
    expect(done?.fields['cpu'], `the agent tells its processor time after the stage ${stage}`)
    return Number(done.fields['cpu'])
  }
  return spent('disks') + spent('files') - spent('image')
}
