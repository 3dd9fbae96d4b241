import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ReleaseManifest } from '@kiln/schemas'
import { labMachine, labMemoryMiB, MachineLab } from '../machine-lab.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'
import { secondVersion } from './update.ts'

/** What the config changes of the kernel's arguments; every slot must boot with it. */
const kernelArguments = { shouldExist: ['kiln_story=power-cut'], shouldNotExist: ['tsc=nowatchdog'] }

/** Messages of Ignition in the journal: a config was fetched, a user's keys were written. */
const configFetchedId = '57124006b5c94805b77ce473e92a8aeb'
const keysWrittenId = '225067b87bbd4a0cb6ab151f82fa364b'

const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKilnKilnKilnKilnKilnKilnKilnKilnKilnKiln power-cut'

/** Among the rest what cannot be done twice: a file that must not be there yet, bytes that are appended. */
const config = {
  ignition: { version: '3.4.0' },
  kernelArguments,
  passwd: { users: [{ name: 'core', uid: 1234, sshAuthorizedKeys: [key] }] },
  storage: {
    directories: [{ path: '/etc/story', mode: 0o750 }],
    files: [
      { path: '/etc/story/once', mode: 0o640, user: { name: 'core' }, contents: { source: 'data:,once%0A' } },
      { path: '/etc/story/appended', append: [{ source: 'data:,one%0A' }, { source: 'data:,two%0A' }] },
    ],
    links: [{ path: '/etc/story/link', target: 'once' }],
  },
  systemd: {
    units: [
      {
        name: 'story.service',
        enabled: true,
        contents:
          '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\n[Install]\nWantedBy=multi-user.target\n',
      },
    ],
  },
}

/** What the machine says of it, whether the power was cut or not. */
const looks: [command: string, answer: string][] = [
  ['stat -c "%a %U %n" /etc/story', '750 root /etc/story'],
  [
    'stat -c "%a %U %n" /etc/story/once /etc/story/appended',
    '640 core /etc/story/once\n644 root /etc/story/appended',
  ],
  ['cat /etc/story/link /etc/story/appended', 'once\none\ntwo'],
  ['getent passwd core', 'core:x:1234:1000::/home/core:/bin/bash'],
  ['grep -c ^core: /etc/passwd /etc/shadow /etc/group', '/etc/passwd:1\n/etc/shadow:1\n/etc/group:1'],
  ['cat /home/core/.ssh/authorized_keys.d/ignition', key],
  ['systemctl is-enabled story.service', 'enabled'],
  ['systemctl is-active story.service', 'active'],
  ['ls /etc/.ignition-journal /var/lib/kiln/installing 2>/dev/null', ''],
  [
    'ls -1d /etc/.ignition-result.json /var/lib/kiln/installed',
    '/etc/.ignition-result.json\n/var/lib/kiln/installed',
  ],
  ['sfdisk -d /dev/vda | sed -n \'s/.* name="\\([^"]*\\)".*/\\1/p\'', 'EFI\nUSR-A\nUSR-B\nROOT'],
  ['blkid -o value -s TYPE /dev/vda1 /dev/vda4', 'vfat\next4'],
  [
    `journalctl -q --no-pager -o cat MESSAGE_ID=${configFetchedId} IGNITION_CONFIG_TYPE=user IGNITION_CONFIG_REFERENCED=false | wc -l`,
    '1',
  ],
  [
    `journalctl -q --no-pager -o cat MESSAGE_ID=${keysWrittenId} IGNITION_USER_NAME=core`,
    'wrote ssh authorized keys file for user: core',
  ],
  ['ls /var/lib/kiln/ignition-messages 2>/dev/null', ''],
]

/** Unsynced bytes that only the writing of an image leaves at once. */
const imageWriteBytes = 2 * 1024 * 1024

/** When the power goes during the install, one time after the other. */
const cuts: { when: string; seen: RegExp; unsyncedBytes?: number }[] = [
  { when: 'partitions are being made', seen: /MARK:disks .*status=running/ },
  { when: 'filesystems were made', seen: /MARK:disks .*status=done/ },
  { when: 'the image is being written', seen: /MARK:image .*status=running/, unsyncedBytes: imageWriteBytes },
  { when: 'files are being written', seen: /MARK:files .*status=running/, unsyncedBytes: 1 },
  { when: 'all is written', seen: /MARK:files .*status=done/ },
]

export const powerCut: Story = {
  name: 'power-cut',
  summary:
    'the power goes at five points of an install and while an update is written; both end as if it had not',
  budgetSeconds: 480,
  timeoutSeconds: 1_900,
  needs: ['vms'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, say, figure } = context
    const [first, second] = [await context.image('0.1.0'), await context.image(secondVersion)]
    const lab = await MachineLab.open(context, {
      image: first,
      config: JSON.stringify(config),
      disk: { kind: 'forgetful', seed: 20_240 },
    })

    let mark = lab.console.mark
    await lab.powerOn()
    for (const { when, seen, unsyncedBytes } of cuts) {
      await lab.seen(seen, { timeoutMs: 240_000, since: mark, signal })
      if (unsyncedBytes !== undefined) await unsynced(lab, unsyncedBytes, signal)
      say(`power cut of the install while ${when}: ${await lab.pullPlug()}`)
      mark = lab.console.mark
      await lab.powerOn()
    }
    const began = performance.now()
    await lab.seen(/MARK:ready .*slot=a/, { timeoutMs: 500_000, since: mark, signal })
    figure('install after five cuts', `${Math.round((performance.now() - began) / 1000)} s`)
    for (const [command, answer] of looks) {
      // Some units are not waited for by what makes a machine ready.
      await until(
        `${command} says ${JSON.stringify(answer)}`,
        { timeoutMs: 60_000, signal, intervalMs: 2_000 },
        async () => {
          const { output } = await lab.shell(command, { signal })
          expect(output.trim() === answer, `it says ${JSON.stringify(output)}`)
          return true
        },
      )
    }
    await sameImage(lab, 'A', first, signal)
    await sameArguments(lab, signal)

    await lab.stage(second)
    await lab.publish(secondVersion)
    await unsynced(lab, imageWriteBytes, signal)
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

/** Waits until more than so many bytes were written to the disk that were not synced yet. */
async function unsynced(lab: MachineLab, bytes: number, signal: StoryContext['signal']): Promise<void> {
  await until('the disk is being written', { timeoutMs: 180_000, signal, intervalMs: 10 }, () =>
    lab.unsyncedBytes > bytes ? true : undefined,
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
