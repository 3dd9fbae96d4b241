import { isIPv4 } from 'node:net'
import { Fault } from '@kiln/service'

export type DnsmasqInput = {
  interface: string
  /** Without leases dnsmasq only adds the boot part to another DHCP server's answers (proxyDHCP). */
  leases: { first: string; last: string; time: string } | undefined
  /** Network of the other DHCP server, for proxy mode. */
  network: string | undefined
  bootUrl: string
  tftpRoot: string
  gateway: string | undefined
  dns: string | undefined
}

/**
 * A config for dnsmasq 2.80 and later: addresses, TFTP of iPXE for plain PXE firmware by architecture (RFC 4578
 * section 2.1), HTTP boot script for iPXE itself.
 */
export function dnsmasqConfig(input: DnsmasqInput): string {
  check(input)
  const script = `${input.bootUrl.replace(/\/+$/, '')}/boot.ipxe`
  const lines = [
    '# Written by kiln-boot dnsmasq: DHCP and TFTP for network boot, no DNS.',
    'port=0',
    `interface=${input.interface}`,
    'bind-interfaces',
    'log-dhcp',
    '',
    ...addresses(input),
    '',
    '# iPXE for firmware that speaks only PXE.',
    'enable-tftp',
    `tftp-root=${input.tftpRoot}`,
    '',
    '# Who asks: iPXE itself (option 77), UEFI x86-64 (architectures 7 and 9), else BIOS.',
    'dhcp-userclass=set:ipxe,iPXE',
    'dhcp-match=set:efi,option:client-arch,7',
    'dhcp-match=set:efi,option:client-arch,9',
    '',
    ...(input.leases ? bootLines(script) : proxyLines(script)),
  ]
  return `${lines.join('\n')}\n`
}

function addresses(input: DnsmasqInput): string[] {
  if (!input.leases) return ['# Beside another DHCP server.', `dhcp-range=${input.network},proxy`]
  const { first, last, time } = input.leases
  return [
    `dhcp-range=${first},${last},${time}`,
    // An empty option keeps dnsmasq from announcing itself as gateway and resolver.
    `dhcp-option=option:router${input.gateway ? `,${input.gateway}` : ''}`,
    `dhcp-option=option:dns-server${input.dns ? `,${input.dns}` : ''}`,
  ]
}

const bootLines = (script: string): string[] => [
  'dhcp-boot=tag:ipxe,' + script,
  'dhcp-boot=tag:!ipxe,tag:efi,snponly.efi',
  'dhcp-boot=tag:!ipxe,tag:!efi,undionly.kpxe',
]

const proxyLines = (script: string): string[] => [
  `pxe-service=tag:ipxe,x86PC,"Kiln",${script}`,
  `pxe-service=tag:ipxe,X86-64_EFI,"Kiln",${script}`,
  `pxe-service=tag:ipxe,BC_EFI,"Kiln",${script}`,
  'pxe-service=tag:!ipxe,x86PC,"iPXE",undionly.kpxe',
  'pxe-service=tag:!ipxe,X86-64_EFI,"iPXE",snponly.efi',
  'pxe-service=tag:!ipxe,BC_EFI,"iPXE",snponly.efi',
]

function check(input: DnsmasqInput): void {
  const problems: string[] = []
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(input.interface)) problems.push('interface is not an interface name')
  if (!/^http:\/\/[A-Za-z0-9.-]+(:\d+)?\/?$/.test(input.bootUrl))
    problems.push('boot-url must be http://HOST:PORT')
  if (!/^\/[^\n"]*$/.test(input.tftpRoot)) problems.push('tftp-root must be an absolute path')
  const given = [input.leases?.first, input.leases?.last, input.network, input.gateway, input.dns]
  for (const address of given) {
    if (address !== undefined && !isIPv4(address))
      problems.push(`${address.slice(0, 64)} is not an IPv4 address`)
  }
  if (input.leases && !/^(\d+[smhdw]?|infinite)$/.test(input.leases.time))
    problems.push('lease must be like 1h')
  if (!input.leases && !input.network) problems.push('give --range, or --network for proxy mode')
  if (problems.length > 0) throw new Fault('USAGE', problems.join('; '))
}
