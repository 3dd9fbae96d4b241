import { join } from 'node:path'
import { labMachine, labMemoryMiB, MachineLab, makeDisk } from '../machine-lab.ts'
import { mountUnit } from '../mount-unit.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

/** A partition that outlives the system. */
const kept = {
  path: '/var/lib/kept',
  device: '/dev/disk/by-partlabel/kept',
  format: 'ext4',
  label: 'kept',
} as const

const kernelArgument = 'kiln_story=reprovision'

const configSaying = (motd: string): object => ({
  ignition: { version: '3.4.0' },
  kernelArguments: { shouldExist: [kernelArgument] },
  storage: {
    disks: [{ device: '/dev/vdb', partitions: [{ label: kept.label, sizeMiB: 0 }] }],
    filesystems: [{ device: kept.device, format: kept.format, path: kept.path }],
    files: [
      { path: '/etc/motd', overwrite: true, contents: { source: `data:,${encodeURIComponent(motd)}` } },
    ],
  },
  systemd: { units: [mountUnit(kept)] },
})

export const reprovision: Story = {
  name: 'reprovision',
  summary:
    'a machine is installed again by another config at its next boot, and keeps a partition; not if that was withdrawn',
  budgetSeconds: 390,
  timeoutSeconds: 1_200,
  needs: ['vms'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, say, figure } = context
    const lab = await MachineLab.open(context, {
      image: await context.image('0.1.0'),
      config: JSON.stringify(configSaying('the first config\n')),
      dataDisks: [makeDisk(join(context.scratch, 'data.raw'), 256 * 1024 * 1024)],
    })
    await lab.powerOn()
    await lab.seen(/MARK:ready /, { timeoutMs: 500_000, signal })
    await lab.shell(`echo kept >${kept.path}/written; sync`, { signal })

    await lab.configure(JSON.stringify(configSaying('the second config\n')))
    const request = `/v1/machines/${labMachine.name}/reinstall`
    await lab.boot.operate('POST', request, { keep: [kept.label] })
    await bootLoader('hidden', lab, signal)
    const asked = performance.now()
    await lab.boot.operate('DELETE', request, {})
    await bootLoader('there', lab, signal)
    let mark = lab.console.mark
    await lab.shell('systemctl reboot', { signal }).catch(() => undefined)
    await lab.seen(/MARK:ready /, { timeoutMs: 400_000, since: mark, signal })
    const same = await lab.shell('cat /etc/motd', { signal })
    expect(same.output.includes('the first config'), `it was not installed again: ${same.output}`)
    const isFetched = lab.console.lines.slice(mark).some((line) => line.includes('MARK:fetch '))
    expect(!isFetched, 'it boots from its disk')
    figure('withdrawn', `${Math.round((performance.now() - asked) / 1000)} s`)

    await lab.boot.operate('POST', request, { keep: [kept.label] })
    await bootLoader('hidden', lab, signal)
    say('the boot loader is hidden')
    mark = lab.console.mark
    await lab.shell('systemctl reboot', { signal }).catch(() => undefined)
    const began = performance.now()
    await lab.seen(/MARK:disks .*status=done/, { timeoutMs: 300_000, since: mark, signal })
    await lab.seen(/MARK:ready /, { timeoutMs: 500_000, since: mark, signal })
    figure('reprovision', `${Math.round((performance.now() - began) / 1000)} s`)

    const { output } = await lab.shell(`cat ${kept.path}/written /etc/motd /proc/cmdline`, { signal })
    expect(/^kept\s+the second config\s/.test(output), `what was kept is there, the rest is new: ${output}`)
    expect(output.includes(kernelArgument), `the kernel has the config's argument: ${output}`)
    const record = await lab.boot.record(labMachine.bootMac)
    expect(
      record?.state === 'installed' && !record.reinstall,
      `it is installed, once: ${JSON.stringify(record)}`,
    )
  },
}

/** kiln-update hides the boot loader of a machine that is to be installed again, and puts it back. */
async function bootLoader(
  wanted: 'hidden' | 'there',
  lab: MachineLab,
  signal: StoryContext['signal'],
): Promise<void> {
  await until(`the boot loader is ${wanted}`, { timeoutMs: 180_000, signal, intervalMs: 3_000 }, async () => {
    const { output } = await lab.shell('ls /boot/EFI/BOOT', { signal })
    return output.includes('BOOTX64.EFI') === (wanted === 'there') ? true : undefined
  })
}
