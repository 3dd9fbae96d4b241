import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { kilnBoot, runCommand } from '../kiln-command.ts'
import { labMachine, labMemoryMiB, MachineLab } from '../machine-lab.ts'
import { startBeside } from '../side-process.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect } from '../waiting.ts'

const hostAddress = '10.78.0.1'
const machineAddress = '10.78.0.91'
const leases = '10.78.0.100,10.78.0.120'
const interfaceName = 'kiln-tap0'

export const dnsmasqTap: Story = {
  name: 'dnsmasq-tap',
  summary: 'a machine boots as real hardware does: DHCP and TFTP of dnsmasq over a tap, then iPXE and HTTP',
  budgetSeconds: 120,
  timeoutSeconds: 500,
  needs: ['vms', 'root'],
  packages: ['dnsmasq-base', 'ipxe', 'iproute2'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, figure, say } = context
    const namespace = await networkNamespace(context)
    const lab = await MachineLab.open(context, {
      image: await context.image('0.1.0'),
      tap: { namespace, interfaceName, hostAddress, machineAddress },
    })
    const { stdout } = await kilnBoot(
      [
        ...['dnsmasq', '--interface', interfaceName, '--range', leases, '--lease', '1h'],
        ...['--boot-url', `http://${hostAddress}:${lab.boot.settings.port}`],
      ],
      { signal },
    )
    const config = join(context.scratch, 'dnsmasq.conf')
    await writeFile(config, stdout)
    startDnsmasq(context, namespace, config)

    const began = performance.now()
    await lab.powerOn()
    await lab.seen(/iPXE|MARK:kernel/, { timeoutMs: 120_000, signal })
    await lab.seen(/MARK:kernel /, { timeoutMs: 120_000, signal })
    say('kernel started')
    const ready = await lab.seen(/MARK:ready /, { timeoutMs: 300_000, signal })
    figure('power-on to ready', `${Math.round((performance.now() - began) / 1000)} s`)
    expect(/slot=a/.test(ready), `it runs from its disk: ${ready}`)
    const record = await lab.boot.record(labMachine.bootMac)
    expect(
      record?.state === 'installed' && record.stage === 'ready',
      `its record is ${record?.state}, ${record?.stage}`,
    )
    const { output } = await lab.shell('ip -4 -o addr show dev eth0', { signal })
    expect(
      output.includes(`${machineAddress}/24`),
      `it has its cluster address on the NIC it booted from: ${output}`,
    )
  },
}

/** A network of the story's own with one tap in it; gone with the story. */
async function networkNamespace(context: StoryContext): Promise<string> {
  const name = `kiln-e2e-${process.pid}`
  const ip = (...args: string[]): Promise<unknown> => runCommand('ip', args, { signal: context.signal })
  await ip('netns', 'add', name)
  context.onEnd(async () => {
    await runCommand('ip', ['netns', 'del', name], { signal: new AbortController().signal })
  })
  await ip('-n', name, 'link', 'set', 'lo', 'up')
  await ip('-n', name, 'tuntap', 'add', 'dev', interfaceName, 'mode', 'tap')
  await ip('-n', name, 'addr', 'add', `${hostAddress}/24`, 'dev', interfaceName)
  await ip('-n', name, 'link', 'set', interfaceName, 'up')
  return name
}

function startDnsmasq(context: StoryContext, namespace: string, config: string): void {
  startBeside(context, 'dnsmasq', [
    ...(['ip', 'netns', 'exec', namespace, 'dnsmasq', '--no-daemon'] as const),
    ...[`--conf-file=${config}`, '--user=root', '--leasefile-ro', '--log-facility=-'],
  ])
}
