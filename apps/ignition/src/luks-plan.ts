import type { IgnitionConfig } from '@kiln/schemas'

export type Luks = NonNullable<NonNullable<IgnitionConfig['storage']>['luks']>[number]

/** Arguments of `cryptsetup luksFormat`; the volume's UUID is the config's, or `uuid`. */
export function luksFormat(luks: Luks, device: string, keyPath: string, uuid: string): string[] {
  return [
    ...['luksFormat', '--batch-mode', '--type', 'luks2', '--key-file', keyPath],
    ...(luks.label ? ['--label', luks.label] : []),
    ...['--uuid', luks.uuid || uuid],
    ...(luks.options ?? []),
    device,
  ]
}

/** Arguments that open a volume; options for every later opening are kept in its header. */
export function luksOpen(luks: Luks, device: string, keyPath: string): string[] {
  const options = [...(luks.discard ? ['--allow-discards'] : []), ...(luks.openOptions ?? [])]
  const persistent = options.length > 0 ? ['--persistent'] : []
  return ['luksOpen', device, luks.name, '--key-file', keyPath, ...options, ...persistent]
}

/** Arguments of `clevis luks bind`: the pin of the config, or tang and tpm2 shared out by sss. */
export function clevisBind(luks: Luks, device: string, keyPath: string): string[] | undefined {
  const { clevis } = luks
  if (!clevis) return undefined
  const bind = ['luks', 'bind', '-f', '-k', keyPath, '-d', device]
  if (clevis.custom?.pin) return [...bind, clevis.custom.pin, clevis.custom.config ?? '{}']
  const tang = (clevis.tang ?? []).map(({ url, thumbprint, advertisement }) => ({
    url,
    thp: thumbprint,
    ...(advertisement ? { adv: JSON.parse(advertisement) as unknown } : {}),
  }))
  if (tang.length === 0 && clevis.tpm2 !== true) return undefined
  const pins = { ...(tang.length > 0 ? { tang } : {}), ...(clevis.tpm2 === true ? { tpm2: {} } : {}) }
  return [...bind, 'sss', JSON.stringify({ pins, t: clevis.threshold ?? 1 })]
}

export type CrypttabEntry = { name: string; uuid: string; keyFile: string | undefined; netdev: boolean }

/** Whether opening the volume at boot needs the network. */
export const needsNetworkAtBoot = ({ clevis }: Luks): boolean =>
  (clevis?.tang?.length ?? 0) > 0 || clevis?.custom?.needsNetwork === true

/** A line of crypttab(5). */
export const crypttabLine = ({ name, uuid, keyFile, netdev }: CrypttabEntry): string =>
  `${name} UUID=${uuid} ${keyFile ?? 'none'} luks${netdev ? ',_netdev' : ''}`

/** Crypttab with these volumes: a line of the same name is replaced, the others stay. */
export function withCrypttabEntries(crypttab: string, entries: CrypttabEntry[]): string {
  const names = new Set(entries.map(({ name }) => name))
  const others = crypttab.split('\n').filter((line) => line !== '' && !names.has(line.split(/\s+/)[0]!))
  return [...others, ...entries.map(crypttabLine)].map((line) => `${line}\n`).join('')
}
