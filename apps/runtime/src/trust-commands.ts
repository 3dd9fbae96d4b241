import { readFile } from 'node:fs/promises'
import { Fault } from '@kiln/service'
import type { Command } from 'commander'
import type { ImagePorts } from './image-commands.ts'
import type { TrustEntry } from './image-service.ts'
import { alignColumns } from './image-table.ts'

type Place = { prefix?: string; root?: boolean }
type Changed = TrustEntry & { changed: string[] }

/** `kiln-runtime image trust ...`: the rules of the image policy. */
export function addTrustCommands(image: Command, ports: ImagePorts): void {
  const trust = image.command('trust').description('which images may be used, and whose signatures they need')
  const at = (name: string, description: string): Command =>
    trust
      .command(name)
      .description(description)
      .option('--prefix <prefix>', 'images of a registry (HOST, HOST/PATH) or of a kind (oci: boot: ...)')
      .option('--root', 'all images that no prefix is for')

  at(
    'add <key>',
    'images must be signed by this key (PEM, ECDSA P-256), or by another that is trusted for them',
  )
    .option('--any-identity', 'signatures for other repositories count too, for all keys of the prefix')
    .action(async (file: string, options: Place & { anyIdentity?: boolean }) => {
      const pem = await readFile(file === '-' ? '/dev/stdin' : file, 'utf8').catch((cause: unknown) => {
        throw new Fault('IMAGE_KEY_NOT_FOUND', `cannot read ${file}`, { cause })
      })
      const prefix = prefixOf(options)
      const anyIdentity = options.anyIdentity ?? false
      const entry = await ports.ask<Changed>('trust', { kind: 'add', prefix, pem, anyIdentity })
      ports.print(`trusted for ${placeOf(entry)}: ${entry.changed.join(' ')}`)
    })
  at('set <policy>', 'accept or refuse images without looking at signatures').action(
    async (policy: string, options: Place) => {
      if (policy !== 'accept' && policy !== 'refuse')
        throw new Fault('REQUEST_INVALID', `the policy is accept or refuse, not ${policy}`)
      const entry = await ports.ask<Changed>('trust', { kind: 'set', prefix: prefixOf(options), policy })
      ports.print(describe(entry))
    },
  )
  at('rm [fingerprint]', 'trust a key no more, or forget the whole rule').action(
    async (fingerprint: string | undefined, options: Place) => {
      const which = fingerprint === undefined ? {} : { fingerprint }
      const entry = await ports.ask<Changed>('trust', { kind: 'rm', prefix: prefixOf(options), ...which })
      for (const key of entry.changed) ports.print(`no longer trusted for ${placeOf(entry)}: ${key}`)
      if (entry.policy === 'signed' && entry.keys.length === 0)
        ports.complain(`no key is left for ${placeOf(entry)}: its images are refused until one is added`)
    },
  )
  trust
    .command('list')
    .description('all rules with the fingerprints of their keys')
    .option('--json', 'as JSON')
    .action(async (options: { json?: boolean }) => {
      const entries = await ports.ask<TrustEntry[]>('trusted', {})
      if (options.json) ports.print(JSON.stringify(entries, undefined, 2))
      else for (const line of trustTable(entries)) ports.print(line)
    })
}

export function trustTable(entries: TrustEntry[]): string[] {
  const rows = entries.flatMap((entry) => {
    const policy = entry.anyIdentity ? 'signed (any identity)' : entry.policy
    return (entry.keys.length > 0 ? entry.keys : ['-']).map((key) => [placeOf(entry), policy, key])
  })
  return alignColumns([['PREFIX', 'POLICY', 'KEY'], ...rows])
}

const placeOf = ({ prefix }: TrustEntry): string => prefix ?? '(root)'
const describe = (entry: TrustEntry): string => `${placeOf(entry)}: ${entry.policy}`

function prefixOf({ prefix, root }: Place): string | null {
  if ((prefix === undefined) === !root) throw new Fault('REQUEST_INVALID', 'give either --prefix or --root')
  return prefix ?? null
}
