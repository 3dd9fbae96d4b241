import type { Command } from 'commander'
import type { NetworkProblem } from './cni/network-list.ts'
import type { NetworkLeft } from './cni/pod-networks.ts'
import { alignColumns } from './image-table.ts'

/** What the daemon says of networks. */
export type NetworksAnswer = {
  networks: { name: string; cniVersion: string; plugins: string[] }[]
  problems: NetworkProblem[]
}

/** `kiln-runtime network`: the networks that pods may ask for, and what is left of those that pods had. */
export function addNetworkCommands(
  program: Command,
  ports: {
    print(line: string): void
    complain(line: string): void
    list(): Promise<NetworksAnswer>
    collect(): Promise<{ left: NetworkLeft[] }>
    exit(code: number): void
  },
): void {
  const network = program.command('network').description('networks of pods, made by CNI plug-ins')
  network
    .command('list')
    .description('networks that pods may ask for; files that are broken go to standard error')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      const answer = await ports.list()
      if (options.json) return ports.print(JSON.stringify(answer, undefined, 2))
      const rows = answer.networks.map(({ name, cniVersion, plugins }) => [
        name,
        cniVersion,
        plugins.join(' '),
      ])
      alignColumns([['NETWORK', 'CNI', 'PLUG-INS'], ...rows]).forEach(ports.print)
      for (const { file, message } of answer.problems) ports.complain(`${file} ${message}`)
      if (answer.problems.length > 0) ports.exit(8)
    })
  network
    .command('gc')
    .description('undo networks of sandboxes that are gone, which the daemon does each hour')
    .action(async () => {
      const { left } = await ports.collect()
      for (const { pod, network: name, message } of left) ports.complain(`${name} of pod ${pod}: ${message}`)
      if (left.length > 0) ports.exit(8)
    })
}
