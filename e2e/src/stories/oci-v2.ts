import { join } from 'node:path'
import type { Cluster } from '../cluster.ts'
import { giveTools, guestToolPackages, guestToolsPath } from '../guest-tools.ts'
import { repositoryRoot } from '../kiln-command.ts'
import { readVerdict, type Verdict } from '../oci-verdict.ts'
import type { Story, StoryContext } from '../story.ts'
import { expect, until } from '../waiting.ts'

const script = 'shared/conformance/oci-runtime.sh'
const machine = 'node1'
const outputPath = '/var/tmp/oci-conformance.out'
const ended = 'SCRIPT-ENDED'

/** Seconds one call of the runtime may take on an emulated processor. */
const caseTimeoutSeconds = 120

/** Cases whose answer depends on cgroup v2: groups, limits, devices by eBPF, the freezer, statistics, ends of containers. */
const onV2 =
  '^(cgroup|update|events|pause|delete_(removes|force)|device_cgroup|ps_|mount_cgroup|ns_cgroup|exec_joins_cgroup|kill_all|hooks_order|run_true)'

/** Cases that Kiln's own machines cannot run, each with the machine's reason. */
const skips: Readonly<Record<string, string>> = {
  proc_self_exe_protected:
    'kiln-oci runs from /usr, which is read-only and verified, so nothing could overwrite it',
}

export const ociV2: Story = {
  name: 'oci-v2',
  summary: "the image's kiln-oci does on cgroup v2 what oci-runtime.sh asks of groups and limits",
  budgetSeconds: 400,
  timeoutSeconds: 1_200,
  needs: ['vms'],
  packages: guestToolPackages,
  besides: [script],
  // Six minutes of an emulated processor: by name until the whole test run has that much room.
  onlyByName: true,
  fixture: 'one-machine',
  run: (context) => conform(context, { only: onV2 }, { STRICT: '1' }),
}

export const ociV2Full: Story = {
  name: 'oci-v2-full',
  summary: "the image's kiln-oci passes all of oci-runtime.sh on cgroup v2, and all of it to the letter",
  budgetSeconds: 1_500,
  timeoutSeconds: 5_400,
  needs: ['vms'],
  packages: guestToolPackages,
  besides: [script],
  onlyByName: true,
  fixture: 'one-machine',
  run: (context) => conform(context, {}, { STRICT: '1' }, {}),
}

/** Runs the script in the machine, once with each environment. */
async function conform(
  context: StoryContext,
  { only }: { only?: string },
  ...environments: Readonly<Record<string, string>>[]
): Promise<void> {
  const { signal } = context
  const cluster = await context.cluster()
  const files = { 'oci-runtime.sh': join(repositoryRoot, '..', script) }
  await giveTools(context, { cluster, machine, files })
  const { code, output } = await cluster.shell(machine, 'systemctl start kiln-oci-planner.service', {
    signal,
  })
  expect(code === 0, `the planner's service starts: ${output}`)
  const failed: string[] = []
  for (const environment of environments) {
    const name = `oci-runtime.sh${Object.entries(environment).map(([key, value]) => ` ${key}=${value}`)}`
    const began = performance.now()
    const verdicts = await runScript(context, cluster, { only, environment })
    const count = (kind: Verdict['kind']): number => verdicts.filter((one) => one.kind === kind).length
    const seconds = Math.round((performance.now() - began) / 1000)
    context.figure(
      name,
      `${count('pass')} passed, ${count('fail')} failed, ${count('skip')} skipped in ${seconds} s`,
    )
    expect(count('pass') > 0, `${name} passed nothing`)
    failed.push(...verdicts.filter(({ kind }) => kind === 'fail').map((one) => one.name))
  }
  expect(failed.length === 0, `cases failed: ${failed.join(' ')}`)
}

/** Starts the script as a unit of its own, and reads what it says until it ends. */
async function runScript(
  context: StoryContext,
  cluster: Cluster,
  { only, environment }: { only: string | undefined; environment: Readonly<Record<string, string>> },
): Promise<Verdict[]> {
  const { signal, say } = context
  const settings = {
    ...environment,
    PATH: `${guestToolsPath}/bin:/usr/sbin:/usr/bin`,
    RUNTIME: '/usr/bin/kiln-oci',
    CASE_TIMEOUT: String(caseTimeoutSeconds),
  }
  const command = `bash ${guestToolsPath}/oci-runtime.sh${only ? ` -k "${only}"` : ''} >${outputPath} 2>&1; echo ${ended} $? >>${outputPath}`
  const started = await cluster.shell(
    machine,
    [
      `rm -f ${outputPath} && touch ${outputPath} && systemd-run --quiet --collect --unit=oci-conformance`,
      ...Object.entries(settings).map(([name, value]) => `--setenv=${name}=${value}`),
      `bash -c '${command}'`,
    ].join(' '),
    { signal },
  )
  expect(started.code === 0, `the script is started: ${started.output}`)
  const verdicts: Verdict[] = []
  let lines = 0
  await until(
    'the script ends',
    { timeoutMs: 3_600_000, signal, intervalMs: 5_000 },
    async (): Promise<true | undefined> => {
      const { output } = await cluster.shell(machine, `tail -n +${lines + 1} ${outputPath}`, { signal })
      const fresh = output.split('\n').filter((line) => line !== '')
      lines += fresh.length
      for (const line of fresh) {
        const verdict = readVerdict(line, skips)
        if (verdict?.kind !== 'pass') say(line)
        if (verdict) verdicts.push(verdict)
      }
      return fresh.some((line) => line.startsWith(ended)) ? true : undefined
    },
  )
  return verdicts
}
