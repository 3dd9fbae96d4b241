import type { Shape, Struct } from './decode.ts'

const string: Shape = { kind: 'string' }
const bytes: Shape = { kind: 'bytes' }
const int: Shape = { kind: 'int' }
const bool: Shape = { kind: 'bool' }
const list = (of: Shape): Shape => ({ kind: 'list', of })
const struct = (name: string, fields: Record<string, Shape | undefined>): Struct => ({
  kind: 'struct',
  name,
  fields: Object.fromEntries(
    Object.entries(fields).filter((field): field is [string, Shape] => field[1] !== undefined),
  ),
})

/** In some versions nothing in place of a section is none at all. */
const nullableIf = (condition: boolean, section: Struct): Struct =>
  condition ? { ...section, nullable: true } : section

/**
 * Generations of the fields that all variants share, as Butane numbers them: 1 writes Ignition 3.0, 2 3.1, 3 3.2,
 * 4 3.3, 5 3.4, 6 3.5, 7 3.6 and 8 what comes after.
 */
export type Generation = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8

/** Sections that only some variants have. */
export type Sections = { bootDevice?: boolean; grub?: boolean; openshift?: boolean; kiln?: boolean }

/** The fields of a version: Butane's specification pages, as a table. */
export function fieldsOf(generation: Generation, sections: Sections): Struct {
  const since = <T>(first: Generation, field: T): T | undefined => (generation >= first ? field : undefined)
  const resource = resourceFields(generation)
  const tang = struct('tang', { thumbprint: string, url: string, advertisement: since(5, string) })
  const cex = since(6, struct('cex', { enabled: bool }))
  return struct('config', {
    version: string,
    variant: string,
    ignition: ignitionFields(generation, resource),
    kernel_arguments: since(
      4,
      struct('kernel_arguments', { should_exist: list(string), should_not_exist: list(string) }),
    ),
    passwd: passwdFields(generation),
    storage: storageFields(generation, resource, tang),
    systemd: systemdFields(generation),
    boot_device: sections.bootDevice ? bootDeviceFields(generation, tang, cex) : undefined,
    grub: sections.grub
      ? struct('grub', { users: list(struct('grub_user', { name: string, password_hash: string })) })
      : undefined,
    metadata: sections.openshift
      ? struct('metadata', { name: string, labels: { kind: 'labels' } })
      : undefined,
    openshift: sections.openshift
      ? struct('openshift', {
          kernel_arguments: list(string),
          extensions: list(string),
          fips: bool,
          kernel_type: string,
        })
      : undefined,
    ...(sections.kiln ? kilnFields : {}),
  })
}

/** Sections of the variant `kiln`. */
const kilnFields: Record<string, Shape> = {
  machine: struct('machine', { name: string, address: string }),
  boot_server: struct('boot_server', { address: string, tls_address: string }),
  update: struct('update', { group: string, reboot_windows: list(string) }),
  store: struct('store', { members: { kind: 'labels' }, token: string, state: string }),
  time_zone: string,
  pods: list(
    struct('pod', {
      local: string,
      manifest: { kind: 'document' },
      name: string,
      image: string,
      args: list(string),
      environment: { kind: 'labels' },
      ports: list(int),
    }),
  ),
}

const verification = struct('verification', { hash: string })

function resourceFields(generation: Generation): Struct {
  return struct('resource', {
    compression: string,
    http_headers: generation >= 2 ? list(struct('header', { name: string, value: string })) : undefined,
    source: string,
    inline: bytes,
    local: generation >= 2 ? string : undefined,
    verification,
  })
}

function ignitionFields(generation: Generation, resource: Struct): Struct {
  const reference = generation === 1 ? struct('reference', { source: string, verification }) : resource
  return struct('ignition', {
    config: struct('ignition_config', { merge: list(reference), replace: reference }),
    proxy:
      generation >= 2
        ? struct('proxy', { http_proxy: string, https_proxy: string, no_proxy: list(string) })
        : undefined,
    security: struct('security', { tls: struct('tls', { certificate_authorities: list(reference) }) }),
    timeouts: struct('timeouts', { http_response_headers: int, http_total: int }),
  })
}

function passwdFields(generation: Generation): Struct {
  const shouldExist = generation >= 3 ? bool : undefined
  return struct('passwd', {
    groups: list(
      struct('group', {
        gid: int,
        name: string,
        password_hash: string,
        should_exist: shouldExist,
        system: bool,
      }),
    ),
    users: list(
      struct('user', {
        gecos: string,
        groups: list(string),
        home_dir: string,
        name: string,
        no_create_home: bool,
        no_log_init: bool,
        no_user_group: bool,
        password_hash: string,
        primary_group: string,
        should_exist: shouldExist,
        ssh_authorized_keys: list(string),
        ssh_authorized_keys_local: generation >= 5 ? list(string) : undefined,
        shell: string,
        system: bool,
        uid: int,
      }),
    ),
  })
}

const owner = struct('owner', { id: int, name: string })
const node = { group: owner, overwrite: bool, path: string, user: owner }

function storageFields(generation: Generation, resource: Struct, tang: Struct): Struct {
  const since = <T>(first: Generation, field: T): T | undefined => (generation >= first ? field : undefined)
  const partition = struct('partition', {
    guid: string,
    label: string,
    number: int,
    resize: since(3, bool),
    should_exist: bool,
    size_mib: int,
    start_mib: int,
    type_guid: string,
    wipe_partition_entry: bool,
  })
  const luks = struct('luks', {
    cex: since(6, struct('cex', { enabled: bool })),
    clevis: nullableIf(
      generation === 3,
      struct('clevis', {
        custom: nullableIf(
          generation === 3,
          struct('custom', { config: string, needs_network: bool, pin: string }),
        ),
        tang: list(tang),
        threshold: int,
        tpm2: bool,
      }),
    ),
    device: string,
    discard: since(5, bool),
    key_file: resource,
    label: string,
    name: string,
    open_options: since(5, list(string)),
    options: list(string),
    uuid: string,
    wipe_volume: bool,
  })
  return struct('storage', {
    directories: list(struct('directory', { ...node, mode: int })),
    disks: list(struct('disk', { device: string, partitions: list(partition), wipe_table: bool })),
    files: list(struct('file', { ...node, append: list(resource), contents: resource, mode: int })),
    filesystems: list(
      struct('filesystem', {
        device: string,
        format: string,
        label: string,
        mount_options: since(2, list(string)),
        options: list(string),
        path: string,
        uuid: string,
        wipe_filesystem: bool,
        with_mount_unit: since(2, bool),
      }),
    ),
    links: list(struct('link', { ...node, hard: bool, target: string })),
    luks: since(3, list(luks)),
    raid: list(
      struct('raid', {
        devices: list(string),
        level: string,
        name: string,
        options: list(string),
        spares: int,
      }),
    ),
    trees: since(2, list(treeFields(generation))),
  })
}

function treeFields(generation: Generation): Struct {
  const owned = generation >= 7 ? { group: owner, user: owner, file_mode: int, dir_mode: int } : {}
  return struct('tree', { local: string, path: string, ...owned })
}

function systemdFields(generation: Generation): Struct {
  const local = generation >= 5 ? string : undefined
  const dropin = struct('dropin', { contents: string, contents_local: local, name: string })
  return struct('systemd', {
    units: list(
      struct('unit', {
        contents: string,
        contents_local: local,
        dropins: list(dropin),
        enabled: bool,
        mask: bool,
        name: string,
      }),
    ),
    quadlets:
      generation >= 8
        ? list(struct('quadlet', { contents: string, contents_local: string, name: string, rootful: bool }))
        : undefined,
  })
}

function bootDeviceFields(generation: Generation, tang: Struct, cex: Struct | undefined): Struct {
  return struct('boot_device', {
    layout: string,
    luks: struct('boot_luks', {
      cex,
      discard: generation >= 5 ? bool : undefined,
      device: generation >= 6 ? string : undefined,
      tang: list(tang),
      threshold: int,
      tpm2: bool,
    }),
    mirror: struct('mirror', { devices: list(string) }),
  })
}
