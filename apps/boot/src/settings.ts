import { Fault } from '@kiln/service'
import * as z from 'zod'

const HostPort = z
  .string()
  .regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]*):\d{1,5}$/, 'must be HOST:PORT')
  .transform((text) => {
    const colon = text.lastIndexOf(':')
    return {
      host: text.slice(0, colon).replaceAll(/[[\]]/g, '') || '0.0.0.0',
      port: Number(text.slice(colon + 1)),
    }
  })
  .refine((at) => at.port <= 65535, 'port must be at most 65535')

const BaseUrl = z.url({ protocol: /^https?$/ }).transform((url) => url.replace(/\/+$/, ''))
/** Commas in a flag or variable, an array in a file. */
const List = z
  .union([z.string().transform((text) => text.split(',')), z.array(z.string())])
  .transform((items) => items.map((item) => item.trim()).filter((item) => item !== ''))

/** Settings of kiln-boot: flags, `KILN_BOOT_*` (and matchbox's `MATCHBOX_*`), `/etc/kiln/boot.toml`. */
export const BootSettings = z.object({
  /** Plain HTTP: network boot, configs, assets, reports. */
  address: HostPort.prefault('127.0.0.1:8080'),
  /** TLS: enrolment, and everything that needs a client certificate. */
  tlsAddress: HostPort.prefault('127.0.0.1:8443'),
  dataPath: z.string().startsWith('/').default('/var/lib/matchbox'),
  /** Empty: no assets are served. */
  assetsPath: z
    .string()
    .refine((path) => path === '' || path.startsWith('/'), 'must be absolute, or empty')
    .default('/var/lib/matchbox/assets'),
  logLevel: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
  /** How machines reach the two ports; by default as they addressed us. */
  publicUrl: BaseUrl.optional(),
  publicTlsUrl: BaseUrl.optional(),
  /** Names and addresses in our own certificate. */
  tlsNames: List.prefault('10.0.2.2,127.0.0.1,localhost'),
  /** The store as kiln-boot reaches it, when not at the members' addresses. */
  storeEndpoints: List.prefault(''),
  /** The store as machines reach it, when no group of this server has store members. */
  machineStoreEndpoints: List.prefault(''),
  /** For so many days after its end a machine's certificate may still be renewed. 0: never. */
  renewExpiredDays: z.coerce.number().int().min(0).max(3650).default(0),
  /** How often the data directory is read again even without a change notice. */
  rescanSeconds: z.coerce.number().int().min(1).max(3600).default(10),
})
export type BootSettings = z.output<typeof BootSettings>

const fromMatchbox = ['ADDRESS', 'DATA_PATH', 'ASSETS_PATH', 'LOG_LEVEL'] as const
const refusedOfMatchbox: Record<string, string> = {
  RPC_ADDRESS: 'the gRPC API is not served',
  CERT_FILE: 'the TLS port makes its own certificate',
  KEY_FILE: 'the TLS port makes its own certificate',
  CA_FILE: 'put ca.pem and ca.key into the pki folder of the data directory',
  WEB_SSL: 'machines boot over plain HTTP; the TLS port is --tls-address',
  WEB_CERT_FILE: 'the TLS port makes its own certificate',
  WEB_KEY_FILE: 'the TLS port makes its own certificate',
  KEY_RING_PATH: 'configs are not signed with OpenPGP',
  PASSPHRASE: 'configs are not signed with OpenPGP',
}

/** matchbox's variables under our names; ours win. Those that cannot be honoured are refused by name. */
export function withMatchboxVariables(
  env: Record<string, string | undefined>,
): Record<string, string | undefined> {
  const refused = Object.entries(refusedOfMatchbox).filter(([name]) => env[`MATCHBOX_${name}`])
  if (refused.length > 0) {
    const reasons = refused.map(([name, reason]) => `MATCHBOX_${name}: ${reason}`)
    throw new Fault(
      'SETTINGS_INVALID',
      `settings of matchbox that kiln-boot does not have: ${reasons.join('; ')}`,
    )
  }
  const mapped: Record<string, string | undefined> = {}
  for (const name of fromMatchbox) {
    if (env[`MATCHBOX_${name}`] !== undefined) mapped[`KILN_BOOT_${name}`] = env[`MATCHBOX_${name}`]
  }
  return { ...mapped, ...env }
}

/** matchbox takes Go's single-dash flags: `-address` is `--address`. */
export function withDoubleDashes(argv: readonly string[]): string[] {
  return argv.map((arg) => (/^-[a-z][a-z-]+(=|$)/.test(arg) ? `-${arg}` : arg))
}
