import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { buildCommand } from '../testing/build-command.ts'
import { startPlanner } from '../testing/planner-process.ts'

const repository = resolve(import.meta.dirname, '../../../..')

export type ScriptRun = {
  /** File name below `../shared/conformance` beside the checkout. */
  script: string
  args: string[]
  /** Programs it needs, by the Debian package that has each. */
  tools: Readonly<Record<string, string>>
  /** Cases that this host cannot run, each with its reason; a skip that is not here is a failure. */
  skips: Readonly<Record<string, string>>
  env?: Record<string, string>
  /** Plans come from a service, not from one Node a call. */
  service?: boolean
}

export type Verdict = { kind: 'pass' | 'fail' | 'skip'; name: string; why: string }

/** A line of a script as a verdict; a skip nobody listed counts as a failure. */
export function readVerdict(line: string, skips: Readonly<Record<string, string>>): Verdict | undefined {
  const match = /^(PASS|FAIL|SKIP) ([a-z0-9_]+)[: ]*(.*)$/.exec(line)
  if (!match) return undefined
  const [, word, name = '', why = ''] = match
  if (word === 'PASS') return { kind: 'pass', name, why }
  const listed = Object.hasOwn(skips, name) ? skips[name] : undefined
  if (word === 'SKIP' && listed) return { kind: 'skip', name, why: listed }
  return { kind: 'fail', name, why: word === 'SKIP' ? `skipped without being listed ${why}` : why }
}

/** What keeps the script from running here: one line each. */
export function missing(run: ScriptRun, path = process.env['PATH'] ?? ''): string[] {
  const found = (tool: string) => path.split(delimiter).some((folder) => existsSync(join(folder, tool)))
  const script = join(repository, '../shared/conformance', run.script)
  return [
    ...(existsSync(script) ? [] : [`there is no ${script}`]),
    ...(process.geteuid?.() === 0 ? [] : ['it needs root']),
    ...Object.entries(run.tools)
      .filter(([tool]) => !found(tool))
      .map(([tool, name]) => `there is no ${tool}: install ${name}`),
  ]
}

/** Runs a script of the shared conformance folder against a fresh build; ends with the line that counts. */
export async function runScript(run: ScriptRun, print: (line: string) => void): Promise<number> {
  const reasons = missing(run)
  if (reasons.length > 0) {
    for (const reason of reasons) print(`SKIP all (${reason})`)
    print('0 passed, 0 failed, 1 skipped')
    return 0
  }
  const folder = await mkdtemp(join(tmpdir(), 'kiln-oci-'))
  try {
    const command = await buildCommand(folder)
    const socket = join(folder, 'planner/socket')
    const planner = run.service ? await startPlanner(command, socket) : undefined
    const runtime = join(folder, 'kiln-oci')
    // conmon passes no variable of ours on.
    const named = `KILN_OCI_PLANNER_SOCKET=${planner ? socket : ''}`
    await writeFile(runtime, `#!/bin/sh\n${named} exec ${command} "$@"\n`, { mode: 0o755 })
    const script = join(repository, '../shared/conformance', run.script)
    const child = spawn('bash', [script, ...run.args], {
      cwd: '/',
      env: { ...process.env, ...run.env, RUNTIME: runtime },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const counts = { pass: 0, fail: 0, skip: 0 }
    for await (const line of createInterface({ input: child.stdout })) {
      const verdict = readVerdict(line, run.skips)
      if (!verdict) continue
      counts[verdict.kind]++
      const after =
        verdict.why === '' ? '' : verdict.kind === 'skip' ? ` (${verdict.why})` : `: ${verdict.why}`
      print(`${verdict.kind.toUpperCase()} ${verdict.name}${after}`)
    }
    if (planner) print(`# the planner's service made ${await planner.stop()} plans`)
    print(`${counts.pass} passed, ${counts.fail} failed, ${counts.skip} skipped`)
    return counts.fail > 0 || counts.pass === 0 ? 1 : 0
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
