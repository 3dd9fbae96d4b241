import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, Fault } from '@kiln/service'
import type { NetworkList } from './network-list.ts'

export type RunTool = (command: string, args: string[], input?: string) => Promise<string>

/** Chain in which the plug-ins bridge and ptp hide a container behind the machine: 28 characters, of which `CNI-` is the start. */
export const masqueradeChain = (network: string, containerId: string): string =>
  `CNI-${createHash('sha512')
    .update(network + containerId)
    .digest('hex')
    .slice(0, 24)}`

/**
 * Removes the masquerading of a container. Debian's bridge and ptp look the addresses up in the container's namespace and
 * leave their rules where that is gone, as after a crash.
 */
export async function removeMasquerade(
  network: NetworkList,
  containerId: string,
  run: RunTool,
): Promise<void> {
  if (!network.plugins.some((plugin) => plugin['ipMasq'] === true)) return
  const chain = masqueradeChain(network.name, containerId)
  for (const tool of ['iptables', 'ip6tables']) {
    const rules = await run(tool, ['-w', '10', '-t', 'nat', '-S']).catch((error: unknown) => {
      // Without the tool, or IPv6, there are no rules.
      if (/ENOENT|does not exist|not supported/.test(describeError(error))) return ''
      throw error
    })
    const lines = rules.split('\n')
    if (!lines.includes(`-N ${chain}`)) continue
    const jumps = lines.filter((line) => line.startsWith('-A POSTROUTING ') && line.endsWith(` -j ${chain}`))
    const undo = [
      '*nat',
      ...jumps.map((line) => line.replace('-A', '-D')),
      `-F ${chain}`,
      `-X ${chain}`,
      'COMMIT',
      '',
    ]
    await run(`${tool}-restore`, ['-w', '10', '--noflush'], undo.join('\n'))
  }
}

/**
 * Ends plug-ins of a container that a daemon before this one has started: they would go on adding what is about to be removed. What they
 * started has their environment, so that all are found.
 */
export async function endPlugins(containerId: string): Promise<void> {
  const mark = `CNI_CONTAINERID=${containerId}`
  for (let attempt = 0; attempt < 100; attempt++) {
    let found = false
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name) || Number(name) === process.pid) continue
      const environment = await readFile(`/proc/${name}/environ`, 'utf8').catch(() => '')
      if (!environment.split('\0').includes(mark)) continue
      found = true
      try {
        process.kill(Number(name), 'SIGKILL')
      } catch {
        // It ended by itself.
      }
    }
    if (!found) return
    await sleep(20)
  }
  throw new Fault('CNI_PLUGIN_TIMED_OUT', `plug-ins of container ${containerId} do not end`)
}
