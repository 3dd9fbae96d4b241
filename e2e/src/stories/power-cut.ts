import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ReleaseManifest } from '@kiln/schemas'
import { labMachine, labMemoryMiB, MachineLab } from '../machine-lab.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'
import { secondVersion } from './update.ts'

/** What the config changes of the kernel's arguments; every slot must boot with it. */
const kernelArguments = { shouldExist: ['kiln_story=power-cut'], shouldNotExist: ['tsc=nowatchdog'] }

/** Unsynced bytes that only the writing of an image leaves at once. */
const imageWriteBytes = 2 * 1024 * 1024

export const powerCut: Story = {
  name: 'power-cut',
  summary:
    'the power goes while an image is written, at the install and at an update; both end as if it had not',
  budgetSeconds: 300,
  timeoutSeconds: 1_200,
  needs: ['vms'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, say, figure } = context
    const [first, second] = [await context.image('0.1.0'), await context.image(secondVersion)]
    const lab = await MachineLab.open(context, {
      image: first,
      config: JSON.stringify({ ignition: { version: '3.4.0' }, kernelArguments }),
      disk: { kind: 'forgetful', seed: 20_240 },
    })

    await lab.powerOn()
    await lab.seen(/MARK:image .*status=running/, { timeoutMs: 180_000, signal })
    await unsynced(lab, signal)
    say(`power cut while the install wrote the image: ${await lab.pullPlug()}`)
    let mark = lab.console.mark
    await lab.powerOn()
    const began = performance.now()
    await lab.seen(/MARK:ready .*slot=a/, { timeoutMs: 500_000, since: mark, signal })
    figure('install after the cut', `${Math.round((performance.now() - began) / 1000)} s`)
    await sameImage(lab, 'A', first, signal)
    await sameArguments(lab, signal)

    await lab.stage(second)
    await lab.publish(secondVersion)
    await unsynced(lab, signal)
    say(`power cut while the update wrote the image: ${await lab.pullPlug()}`)
    mark = lab.console.mark
    await lab.powerOn()
    const again = performance.now()
    const back = await lab.seen(/MARK:ready /, { timeoutMs: 400_000, since: mark, signal })
    expect(/version=0\.1\.0 slot=a/.test(back), `it comes back with what it ran: ${back}`)
    mark = lab.console.mark
    await lab.seen(new RegExp(`MARK:ready .*version=${secondVersion} slot=b`), {
      timeoutMs: 500_000,
      since: mark,
      signal,
    })
    figure('update after the cut', `${Math.round((performance.now() - again) / 1000)} s`)
    await sameImage(lab, 'B', second, signal)
    await sameArguments(lab, signal)
    const record = await lab.boot.record(labMachine.bootMac)
    expect(record?.version === secondVersion, `the boot server knows of ${record?.version}`)
  },
}

/** Waits until the disk holds a part of an image that was not synced yet. */
async function unsynced(lab: MachineLab, signal: StoryContext['signal']): Promise<void> {
  await until('an image is being written', { timeoutMs: 180_000, signal, intervalMs: 10 }, () =>
    lab.unsyncedBytes > imageWriteBytes ? true : undefined,
  )
}

async function sameArguments(lab: MachineLab, signal: AbortSignal): Promise<void> {
  const { output } = await lab.shell('cat /proc/cmdline', { signal })
  const has = (word: string): boolean => output.split(/\s+/).includes(word)
  expect(kernelArguments.shouldExist.every(has), `the kernel has what should exist: ${output}`)
  expect(!kernelArguments.shouldNotExist.some(has), `the kernel has not what should not exist: ${output}`)
}

/** The slot holds the image of the release, byte for byte, as the machine itself reads it. */
async function sameImage(
  lab: MachineLab,
  slot: 'A' | 'B',
  image: string,
  signal: AbortSignal,
): Promise<void> {
  const manifest = ReleaseManifest.parse(JSON.parse(await readFile(join(image, 'manifest.json'), 'utf8')))
  const part = manifest.parts.find(({ name }) => name === 'usr.img')
  expect(part, 'the release has an image')
  const { output } = await lab.shell(
    `head -c ${part.sizeBytes} /dev/disk/by-partlabel/USR-${slot} | sha256sum`,
    { signal, timeoutMs: 120_000 },
  )
  expect(output.includes(part.sha256), `slot ${slot} holds the image of ${manifest.version}: ${output}`)
}
