import type { IgnitionConfig, IgnitionDirectory, IgnitionFile, IgnitionLink } from '@kiln/schemas'

export type PlannedNode =
  | { kind: 'directory'; index: number; node: IgnitionDirectory }
  | { kind: 'file'; index: number; node: IgnitionFile }
  | { kind: 'link'; index: number; node: IgnitionLink }

/** Directories, files and symlinks by depth, then hard links, whose targets must exist by then. */
export function planNodes(config: IgnitionConfig): PlannedNode[] {
  const { directories = [], files = [], links = [] } = config.storage ?? {}
  const nodes: PlannedNode[] = [
    ...directories.map((node, index): PlannedNode => ({ kind: 'directory', index, node })),
    ...files.map((node, index): PlannedNode => ({ kind: 'file', index, node })),
    ...links.map((node, index): PlannedNode => ({ kind: 'link', index, node })),
  ]
  const rank = (planned: PlannedNode): number =>
    planned.kind === 'link' && planned.node.hard === true
      ? Number.POSITIVE_INFINITY
      : planned.node.path.split('/').length
  return nodes.sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)))
}
