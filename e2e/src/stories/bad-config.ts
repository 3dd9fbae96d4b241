import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Cluster, serialLogPath } from '../cluster.ts'
import { kiln } from '../kiln-command.ts'
import { labMemoryMiB, MachineLab } from '../machine-lab.ts'
import { PortReader } from '../port-reader.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

/** An operator's mistake: a mode in quotes, in line 5 from column 38. */
const config = `{
  "ignition": { "version": "3.4.0" },
  "storage": {
    "files": [
      { "path": "/etc/motd", "mode": "0644", "contents": { "source": "data:,battery-staple" } }
    ]
  }
}
`
const place = { path: '$.storage.files.0.mode', line: 5 }
/** What nobody may be shown of a config. */
const content = 'battery-staple'

/** The same config in the firmware's configuration, where platform qemu has it. */
async function inFirmware(context: StoryContext): Promise<void> {
  const { signal, say } = context
  const ignitionConfigPath = join(context.scratch, 'config.ign')
  writeFileSync(ignitionConfigPath, config)
  const lab = await MachineLab.open(context, {
    image: await context.image('0.1.0'),
    args: ['ignition.platform.id=qemu', 'ignition.config.url='],
    ignitionConfigPath,
  })
  await lab.powerOn()
  const last = await lab.console.waitFor(/kiln-ignition: fetch: .* restart the machine\./, {
    timeoutMs: 150_000,
    signal,
  })
  say(`console of platform qemu: ${last}`)
  expect(last.includes(`${place.path}:${place.line}:`), `the console says where: ${last}`)
}

export const badConfig: Story = {
  name: 'bad-config',
  summary:
    'a machine with an invalid config stops, and says where on console, virtio port, in the records and in kiln up; also from fw_cfg',
  budgetSeconds: 120,
  timeoutSeconds: 600,
  needs: ['vms'],
  memoryMiB: labMemoryMiB,
  async run(context) {
    const { signal, say } = context
    const state = join(context.scratch, 'cluster')
    const logPath = join(context.folder, 'kiln.log')
    context.watch({ name: 'node1', path: serialLogPath(state, 'node1') })
    context.keep({ name: 'boot.log', path: join(state, 'boot.log') })
    context.onEnd(() => Cluster.remove(state, logPath))

    const up = kiln(['up', '--keep', '--nodes', '1', '--state', state], { signal, logPath, mayFail: true })
    // The machine takes seconds to its firmware's end, the file is read when it asks for its config.
    const file = join(state, 'boot/ignition/kiln.ign')
    await until('the cluster has a config', { timeoutMs: 200_000, signal, intervalMs: 50 }, () =>
      existsSync(join(state, 'lab.json')) && existsSync(file) ? true : undefined,
    )
    writeFileSync(file, config)
    // The machine's host reads the port, as it would without any network; it takes nothing while nobody listens.
    const port = await until(
      'the port for reports is there',
      { timeoutMs: 100_000, signal, intervalMs: 200 },
      () => PortReader.open(state, 'node1', 'kiln.report'),
    )
    context.onEnd(async () => port.close())
    const { code, stderr } = await up
    const said = stderr.trim().split('\n').at(-1) ?? ''
    say(`kiln up: ${said}`)
    expect(code !== 0, 'kiln up fails')
    expect(said.includes(place.path) && said.includes(`line ${place.line}`), `kiln up says where: ${said}`)

    const { stdout } = await kiln(['machines', '--json', '--state', state], { signal, logPath })
    const { records } = JSON.parse(stdout) as { records: Record<string, unknown>[] }
    const [record] = records
    say(`record: ${JSON.stringify(record)}`)
    expect(record?.['state'] === 'failed', 'the record is failed')
    expect(record['path'] === place.path && record['line'] === place.line, 'the record says where')
    expect(Number(record['column']) > 1, 'the record has a column')

    const shown = await kiln(['logs', 'node1', '--state', state], { signal, logPath })
    const last = shown.stdout.trim().split('\n').at(-1) ?? ''
    say(`console: ${last}`)
    expect(last.includes(`${place.path}:${place.line}:`), `the console's last line says where: ${last}`)
    expect(last.endsWith(' restart the machine.'), `the console's last line says how to retry: ${last}`)

    await until(
      'the report is on the port',
      { timeoutMs: 10_000, signal },
      () => port.text.endsWith('\n') || undefined,
    )
    const report = port.text.trim()
    say(`port kiln.report: ${report}`)
    expect(last === `kiln-ignition: ${report}`, `the port has the reason of the console: ${report}`)
    expect(
      report.startsWith(`fetch: ${place.path}:${place.line}:`),
      `the port says stage and place: ${report}`,
    )
    expect(!`${report}${shown.stdout}${said}`.includes(content), 'nobody is shown what the config holds')
    await inFirmware(context)
  },
  allowedBadness: ['agent failure'],
}
