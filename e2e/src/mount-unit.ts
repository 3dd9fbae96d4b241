/** A mount unit in a config, as Butane's `with_mount_unit` makes them; `remote` for what needs the network. */
export function mountUnit({
  path,
  device,
  format,
  remote = false,
}: {
  path: string
  device: string
  format: string
  remote?: boolean
}): object {
  const target = remote ? 'remote-fs.target' : 'local-fs.target'
  return {
    name: `${path.slice(1).replaceAll('/', '-')}.mount`,
    enabled: true,
    contents: [
      '[Unit]',
      `Before=${target}`,
      ...(remote ? ['DefaultDependencies=no', 'After=remote-fs-pre.target', 'Conflicts=umount.target'] : []),
      '[Mount]',
      `Where=${path}`,
      `What=${device}`,
      `Type=${format}`,
      ...(remote ? ['Options=_netdev'] : []),
      '[Install]',
      `RequiredBy=${target}`,
      '',
    ].join('\n'),
  }
}
