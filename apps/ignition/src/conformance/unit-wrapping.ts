/** How the value of a unit row stands in a whole config: what surrounds it, and the path it stands at. */
export type UnitWrapping = {
  at: string
  config: (value: unknown, version: string) => Record<string, unknown>
}

const device = '/dev/disk/by-label/x'
const source = 'https://example.com/x'

const config = (version: string, parts: Record<string, unknown>): Record<string, unknown> => ({
  ...parts,
  ignition: { version, ...(parts['ignition'] as object | undefined) },
})

const storage = (list: string, entry: (value: unknown) => unknown, at = ''): UnitWrapping => ({
  at: `$.storage.${list}.0${at}`,
  config: (value, version) => config(version, { storage: { [list]: [entry(value)] } }),
})

const fields = (value: unknown): object => (typeof value === 'object' && value !== null ? value : {})
/** Fields that a whole config needs where a row leaves them empty. */
const filled = (value: unknown, needed: Record<string, unknown>): object => {
  const given = Object.entries(fields(value)).filter(([key, content]) => !(key in needed) || content !== '')
  return { ...needed, ...Object.fromEntries(given) }
}

const contents = (value: unknown): object => ({ path: '/f', contents: value })
const partition = (value: object): object => ({ device, partitions: [{ number: 1, ...value }] })
const luks = (value: object): object => ({ name: 'l', device, ...value })

const unit = (value: unknown): object => filled(value, { name: 'x.service' })
const systemd = (value: unknown, version: string): Record<string, unknown> =>
  config(version, { systemd: value })

/** By the name of the type the row's rule belongs to. */
const wrappings: Record<string, UnitWrapping> = {
  Config: {
    at: '$',
    config: (value, version) => {
      const given = fields(value) as { ignition?: object }
      return { ...given, ignition: { ...given.ignition, version } }
    },
  },
  Cex: storage('luks', (value) => luks({ cex: value ?? {} }), '.cex'),
  Clevis: storage('luks', (value) => luks({ clevis: value ?? {} }), '.clevis'),
  ClevisCustom: storage('luks', (value) => luks({ clevis: { custom: value } }), '.clevis.custom'),
  Tang: storage('luks', (value) => luks({ clevis: { tang: [value] } }), '.clevis.tang.0'),
  Luks: storage('luks', (value) => filled(value, { name: 'l', device })),
  Disk: storage('disks', (value) => filled(value, { device })),
  Partition: storage('disks', (value) => ({ device, partitions: [value] }), '.partitions.0'),
  Raid: storage('raid', (value) => filled(value, { name: 'r' })),
  Filesystem: storage('filesystems', (value) => filled(value, { device })),
  File: storage('files', (value) => filled(value, { path: '/f' })),
  Directory: storage('directories', (value) => filled(value, { path: '/d' })),
  Link: storage('links', (value) => filled(value, { path: '/l', target: '/t' })),
  Node: storage('files', (value) => filled(value, { path: '/f' })),
  NodeUser: storage('files', (value) => ({ path: '/f', user: value }), '.user'),
  NodeGroup: storage('files', (value) => ({ path: '/f', group: value }), '.group'),
  FileContents: storage('files', contents, '.contents'),
  Resource: storage('files', contents, '.contents'),
  HTTPHeaders: storage('files', (value) => contents({ source, httpHeaders: value }), '.contents.httpHeaders'),
  Verification: storage(
    'files',
    (value) => contents({ source, verification: value }),
    '.contents.verification',
  ),
  Storage: { at: '$.storage', config: (value, version) => config(version, { storage: value }) },
  Systemd: { at: '$.systemd', config: systemd },
  Unit: {
    at: '$.systemd.units.0',
    config: (value, version) => systemd({ units: [unit(value)] }, version),
  },
  Dropin: {
    at: '$.systemd.units.0.dropins.0',
    config: (value, version) => systemd({ units: [{ name: 'x.service', dropins: [value] }] }, version),
  },
  Passwd: { at: '$.passwd', config: (value, version) => config(version, { passwd: value }) },
  KernelArguments: {
    at: '$.kernelArguments',
    config: (value, version) => config(version, { kernelArguments: value }),
  },
  Ignition: { at: '$.ignition', config: (value, version) => config(version, { ignition: value }) },
  IgnitionConfig: {
    at: '$.ignition.config',
    config: (value, version) => config(version, { ignition: { config: value } }),
  },
  TLS: {
    at: '$.ignition.security.tls',
    config: (value, version) => config(version, { ignition: { security: { tls: value } } }),
  },
  Proxy: {
    at: '$.ignition.proxy',
    config: (value, version) => config(version, { ignition: { proxy: value } }),
  },
}

/** By the name of the table, where the row's type is a plain string or number. */
const wrappingsOfTables: Record<string, UnitWrapping> = {
  TestModeValidate: storage('files', (value) => ({ path: '/f', mode: value }), '.mode'),
  TestPermissionBitsValidate: storage('files', (value) => ({ path: '/f', mode: value }), '.mode'),
  TestValidateGUID: storage('disks', (value) => partition({ guid: value }), '.partitions.0.guid'),
  TestValidateLabel: storage('disks', (value) => partition({ label: value }), '.partitions.0.label'),
  TestLabelValidate: storage(
    'filesystems',
    (value) => filled((value as { filesystem: unknown }).filesystem, { device }),
    '.label',
  ),
  TestPathValidate: storage('files', (value) => ({ path: value ?? '' }), '.path'),
  TestURLValidate: storage('files', (value) => contents({ source: value }), '.contents.source'),
  TestHashParts: storage(
    'files',
    (value) => contents({ source, verification: { hash: JSON.parse(value as string) as unknown } }),
    '.contents.verification.hash',
  ),
  TestSystemdUnitValidateName: {
    at: '$.systemd.units.0.name',
    config: (value, version) => systemd({ units: [{ name: value }] }, version),
  },
  TestFilesystemValidateFormat: storage('filesystems', (value) => filled(value, { device }), '.format'),
  TestFilesystemValidatePath: storage(
    'filesystems',
    (value) => filled(value, { device, format: 'ext4' }),
    '.path',
  ),
  TestFileValidateOverwrite: storage('files', (value) => filled(value, { path: '/f' }), '.overwrite'),
}

/** The wrapping of a table's rows, whose shape is given as Go's text of the row type. */
export function wrappingOf(table: string, types: string): UnitWrapping | undefined {
  const type = /\bin \*?(\w+)\b/.exec(types)?.[1]
  return wrappingsOfTables[table] ?? (type === undefined ? undefined : wrappings[type])
}

/** A proxy's rule is one for http and a stricter one for https. */
export const proxyWrapping = (httpOk: boolean): UnitWrapping => {
  const name = httpOk ? 'httpProxy' : 'httpsProxy'
  return {
    at: `$.ignition.proxy.${name}`,
    config: (value, version) => config(version, { ignition: { proxy: { [name]: value } } }),
  }
}
