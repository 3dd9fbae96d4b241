import { parseArgs } from 'node:util'
import { describeError, Fault } from '@kiln/service'
import { dnsmasqConfig } from './dnsmasq-config.ts'

export type CommandResult = { exitCode: 0 | 2; output: string }

const usage = `kiln-boot: boots machines over the network, configures, enrols and updates them

usage: kiln-boot [settings]                 serve until SIGTERM
       kiln-boot dnsmasq --interface IF     print a dnsmasq config for DHCP, TFTP and iPXE

settings (also KILN_BOOT_* and, where matchbox has them, MATCHBOX_*; /etc/kiln/boot.toml):
  --address HOST:PORT         plain HTTP for machines (127.0.0.1:8080)
  --tls-address HOST:PORT     TLS for enrolment and operators (127.0.0.1:8443)
  --data-path DIR             groups, profiles, ignition, generic and our state (/var/lib/matchbox)
  --assets-path DIR           served below /assets, releases in releases/VERSION; empty: none
  --public-url URL            how machines reach --address (default: as they addressed us)
  --public-tls-url URL        how machines reach --tls-address
  --tls-names LIST            names and addresses in our certificate (10.0.2.2,127.0.0.1,localhost)
  --store-endpoints LIST      the store as this server reaches it (default: the members' addresses)
  --machine-store-endpoints LIST  the store of machines whose groups have no store members
  --renew-expired-days N      renew machines' certificates that ended no longer ago than this (0: none)
  --rescan-seconds N          read the data directory again at least this often (10)
  --log-level LEVEL           debug, info, warn or error (info)
  --help, --version

dnsmasq options:
  --interface IF              interface that machines boot on (required)
  --range FIRST,LAST          addresses to lease; without it dnsmasq answers as proxy beside another DHCP server
  --network ADDRESS           network address for proxy mode, e.g. 10.77.0.0
  --boot-url URL              this server as machines see it, http://HOST:PORT (required)
  --tftp-root DIR             folder with undionly.kpxe and snponly.efi (/usr/lib/ipxe)
  --lease TIME                lease time (1h)
  --gateway ADDRESS, --dns ADDRESS  told to machines
`

/** Commands that are no daemon; undefined when the daemon is meant. */
export function runCommand(argv: readonly string[], version: string): CommandResult | undefined {
  if (argv.includes('--help') || argv.includes('-h') || argv[0] === 'help')
    return { exitCode: 0, output: usage }
  if (argv.includes('--version') || argv[0] === 'version') {
    return { exitCode: 0, output: `kiln-boot ${version}\n` }
  }
  if (argv[0] === undefined || argv[0].startsWith('-')) return undefined
  if (argv[0] !== 'dnsmasq') {
    return { exitCode: 2, output: `kiln-boot: there is no command ${argv[0]}; see kiln-boot --help\n` }
  }
  try {
    return { exitCode: 0, output: dnsmasqCommand(argv.slice(1)) }
  } catch (error) {
    return { exitCode: 2, output: `kiln-boot dnsmasq: ${describeError(error)}\n` }
  }
}

function dnsmasqCommand(argv: string[]): string {
  const text = { type: 'string' } as const
  const { values } = parseArgs({
    args: argv,
    options: {
      interface: text,
      range: text,
      network: text,
      'boot-url': text,
      'tftp-root': { ...text, default: '/usr/lib/ipxe' },
      lease: { ...text, default: '1h' },
      gateway: text,
      dns: text,
    },
  })
  const bootUrl = values['boot-url']
  if (!values.interface || !bootUrl) throw new Fault('USAGE', '--interface and --boot-url are required')
  const [first, last, more] = values.range?.split(',') ?? []
  if (values.range !== undefined && (!first || !last || more !== undefined)) {
    throw new Fault('USAGE', '--range must be FIRST,LAST')
  }
  return dnsmasqConfig({
    interface: values.interface,
    leases: first && last ? { first, last, time: values.lease } : undefined,
    network: values.network,
    bootUrl,
    tftpRoot: values['tftp-root'],
    gateway: values.gateway,
    dns: values.dns,
  })
}
