import { join } from 'node:path'
import { availableMemoryMiB, findProgram, missingMachinePackages } from '@kiln/vm'
import { repositoryRoot, runCommand } from './kiln-command.ts'
import type { Story } from './story.ts'

/** What a package brings, to see whether it is there. */
const programs: Record<string, string> = {
  'busybox-static': 'busybox',
  'dnsmasq-base': 'dnsmasq',
  gojq: 'gojq',
  iproute2: 'ip',
  swtpm: 'swtpm',
}
const files: Record<string, string> = {
  ipxe: '/usr/lib/ipxe/snponly.efi',
  python3: '/usr/bin/python3',
  'tang-common': '/usr/libexec/tangd',
}

export type Host = {
  root: boolean
  searchPath: string
  /** True for a file that is there. */
  exists(path: string): boolean
}

/** Packages of a story that the host lacks. */
export function missingPackages(story: Pick<Story, 'needs' | 'packages'>, host: Host): string[] {
  const own = (story.packages ?? []).filter((name) => {
    const program = programs[name]
    if (program) return !findProgram(program, host.searchPath)
    const file = files[name]
    return file === undefined || !host.exists(file)
  })
  return [...(story.needs.includes('vms') ? missingMachinePackages(host.searchPath) : []), ...own]
}

/** Why the host cannot run a story. As root it installs the packages that are missing, and says which. */
export async function unmetNeed(
  story: Story,
  host: Host,
  say: (line: string) => void,
): Promise<string | undefined> {
  if (story.needs.includes('root') && !host.root) return 'needs root'
  const absent = (story.besides ?? []).find((path) => !host.exists(join(repositoryRoot, '..', path)))
  if (absent) return `needs ${absent} beside the checkout`
  const missing = missingPackages(story, host)
  if (missing.length === 0) return undefined
  if (!host.root || !findProgram('apt-get', host.searchPath)) return `needs the packages ${missing.join(' ')}`
  say(`installing ${missing.join(' ')}`)
  const options = { signal: AbortSignal.timeout(300_000), mayFail: true }
  await runCommand('apt-get', ['update', '-q'], options)
  await runCommand(
    'apt-get',
    ['install', '-q', '-y', '--no-install-recommends', '--no-upgrade', ...missing],
    options,
  )
  const still = missingPackages(story, host)
  return still.length > 0 ? `the packages ${still.join(' ')} cannot be installed` : undefined
}

/** Memory for machines: what is available now, less what the host itself goes on needing. */
export const machineMemoryMiB = (): number => availableMemoryMiB() - hostReserveMiB

const hostReserveMiB = 512
