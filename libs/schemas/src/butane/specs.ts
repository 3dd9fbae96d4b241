import type { Struct } from './decode.ts'
import { fieldsOf, type Generation } from './fields.ts'

/** What is particular about one version of one variant. */
export type Spec = {
  variant: string
  version: string
  /** Version of the Ignition specification that it is translated to. */
  ignition: string
  generation: Generation
  shape: Struct
  /** Layouts, mirrors and encryption of the disk that the machine boots from. */
  bootDevice: { s390x: boolean; mirrorNeedsLayout: 'warning' | 'error'; methodRequired: boolean } | undefined
  grub: boolean
  checks: { mountPoints: boolean; reuseByLabel: boolean; partitionNumbers: boolean; rootSize: boolean }
  /** Sections of the resulting config that the variant's machines cannot follow, with the reason. */
  filters: Readonly<Record<string, string>>
  openshift: OpenShift | undefined
  /** Sections of our own, for machines that run Kiln. */
  kiln: boolean
}

/** How a config is wrapped for OpenShift's machine config operator, which supports a part of Ignition. */
export type OpenShift = {
  compress: boolean
  specialModes: boolean
  refusesNone: boolean
  fipsCipher: boolean
  cexArgument: boolean
  grubContents: boolean
}

const unsupported = (what: string): string => `${what} not supported in this spec version`

const edgeFilters = {
  kernelArguments: unsupported('kernel argument customization is'),
  'storage.disks': unsupported('disk customization is'),
  'storage.filesystems': unsupported('filesystem customization is'),
  'storage.luks': unsupported('luks is'),
  'storage.raid': unsupported('raid is'),
}
const clevisFilter = { 'storage.luks.clevis': unsupported('clevis is') }
const cexFilter = { 'storage.luks.cex': 'cex is not currently supported on the target platform' }

const noChecks = { mountPoints: false, reuseByLabel: false, partitionNumbers: false, rootSize: false }

type Line = [version: string, generation: Generation, ignition: string]

function fcos([version, generation, ignition]: Line): Spec {
  const minor = Number(version.split('.')[1])
  const grub = minor >= 5
  const bootDevice = minor >= 3
  return {
    variant: 'fcos',
    version,
    ignition,
    generation,
    shape: fieldsOf(generation, { bootDevice, grub }),
    bootDevice: bootDevice
      ? {
          s390x: minor >= 6,
          mirrorNeedsLayout: minor >= 7 ? 'error' : 'warning',
          methodRequired: minor >= 7,
        }
      : undefined,
    grub,
    checks: {
      mountPoints: minor >= 6,
      reuseByLabel: minor >= 6,
      partitionNumbers: true,
      rootSize: minor >= 3,
    },
    filters: {},
    openshift: undefined,
    kiln: false,
  }
}

function plain(variant: string, filters: Spec['filters'], [version, generation, ignition]: Line): Spec {
  return {
    variant,
    version,
    ignition,
    generation,
    shape: fieldsOf(generation, { kiln: variant === 'kiln' }),
    bootDevice: undefined,
    grub: false,
    checks: noChecks,
    filters,
    openshift: undefined,
    kiln: variant === 'kiln',
  }
}

const userFields =
  'gecos groups homeDir noCreateHome noLogInit noUserGroup primaryGroup shell shouldExist system uid'.split(
    ' ',
  )
const userFieldMessage =
  'fields other than "name", "ssh_authorized_keys", and "password_hash" (4.13.0+) are not supported in this spec version'

function openshift([version, generation, ignition]: Line): Spec {
  const minor = Number(version.split('.')[1])
  const experimental = version.endsWith('-experimental')
  const grub = minor >= 14
  const users = minor >= 13 ? userFields : [...userFields, 'passwordHash']
  return {
    variant: 'openshift',
    version,
    ignition,
    generation,
    shape: fieldsOf(generation, { bootDevice: true, grub, openshift: true }),
    bootDevice: {
      s390x: minor >= 19,
      mirrorNeedsLayout: experimental ? 'error' : 'warning',
      methodRequired: experimental,
    },
    grub,
    checks: {
      // The rules of fcos for the whole config do not count here: openshift has its own in their place.
      mountPoints: false,
      reuseByLabel: false,
      partitionNumbers: true,
      rootSize: true,
    },
    filters: {
      kernelArguments:
        'this section cannot be used for kernel arguments in this spec version; use openshift.kernel_arguments instead',
      'passwd.groups': unsupported('groups are'),
      ...Object.fromEntries(users.map((field) => [`passwd.users.${field}`, userFieldMessage])),
      'storage.directories': unsupported('directories are'),
      'storage.files.append': unsupported('appending to files is'),
      ...(minor < 10 ? { 'storage.files.contents.compression': unsupported('file compression is') } : {}),
      'storage.files.contents.httpHeaders': unsupported('file HTTP headers are'),
      'storage.links': unsupported('links are'),
    },
    openshift: {
      compress: minor >= 10,
      specialModes: minor < 10,
      refusesNone: minor >= 14,
      fipsCipher: minor < 20,
      cexArgument: minor >= 19,
      grubContents: experimental,
    },
    kiln: false,
  }
}

const openshiftLine = (minor: number): Line =>
  minor <= 13
    ? [`4.${minor}.0`, 3, '3.2.0']
    : minor <= 18
      ? [`4.${minor}.0`, 5, '3.4.0']
      : [`4.${minor}.0`, 6, '3.5.0']

const upcoming = '3.7.0-experimental'

/** Version by version, oldest first. The tables of fields are made when one is asked for. */
const lines: Record<string, (() => Spec)[]> = {
  fcos: (
    [
      ['1.0.0', 1, '3.0.0'],
      ['1.1.0', 2, '3.1.0'],
      ['1.2.0', 3, '3.2.0'],
      ['1.3.0', 3, '3.2.0'],
      ['1.4.0', 4, '3.3.0'],
      ['1.5.0', 5, '3.4.0'],
      ['1.6.0', 6, '3.5.0'],
      ['1.7.0', 7, '3.6.0'],
      ['1.8.0-experimental', 8, upcoming],
    ] as Line[]
  ).map((line) => () => fcos(line)),
  flatcar: [
    () => plain('flatcar', clevisFilter, ['1.0.0', 4, '3.3.0']),
    () => plain('flatcar', clevisFilter, ['1.1.0', 5, '3.4.0']),
    () => plain('flatcar', cexFilter, ['1.2.0-experimental', 8, upcoming]),
  ],
  r4e: [
    () => plain('r4e', edgeFilters, ['1.0.0', 4, '3.3.0']),
    () => plain('r4e', edgeFilters, ['1.1.0', 5, '3.4.0']),
    () => plain('r4e', edgeFilters, ['1.2.0-experimental', 8, upcoming]),
  ],
  fiot: [
    () => plain('fiot', edgeFilters, ['1.0.0', 5, '3.4.0']),
    () => plain('fiot', edgeFilters, ['1.1.0-experimental', 8, upcoming]),
  ],
  kiln: [() => plain('kiln', cexFilter, ['1.0.0', 7, '3.6.0'])],
  openshift: [
    ...Array.from({ length: 15 }, (_, index) => () => openshift(openshiftLine(8 + index))),
    () => openshift(['4.23.0-experimental', 8, upcoming]),
  ],
}

/** The versions there are of a variant, oldest first; undefined for an unknown variant. */
export const versionsOf = (variant: string): string[] | undefined =>
  Object.hasOwn(lines, variant) ? lines[variant]!.map((make) => make().version) : undefined

export function findSpec(variant: string, version: string): Spec | undefined {
  if (!Object.hasOwn(lines, variant)) return undefined
  for (const make of lines[variant]!) {
    const spec = make()
    if (spec.version === version) return spec
  }
  return undefined
}
