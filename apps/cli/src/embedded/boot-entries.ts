/** A boot entry by its file name: `kiln-<generation>-<version>[+<left>[-<done>]].conf` (docs/reference/seams.md, ESP). */
export type BootEntry = { name: string; generation: number; version: string; left?: number; done: number }

export function parseBootEntry(name: string): BootEntry | undefined {
  const found = /^kiln-(\d+)-(.+?)(?:\+(\d+)(?:-(\d+))?)?\.conf$/.exec(name)
  if (!found) return undefined
  const left = found[3] === undefined ? undefined : Number(found[3])
  return { name, generation: Number(found[1]), version: found[2]!, left, done: Number(found[4] ?? 0) }
}

/**
 * The entry that systemd-boot takes: entries without tries left come last, of the others the newest
 * (Boot Loader Specification, "Sorting" and "Boot counting").
 */
export function chooseBootEntry(names: readonly string[]): BootEntry | undefined {
  return names
    .map(parseBootEntry)
    .filter((entry) => entry !== undefined)
    .sort((a, b) => Number(a.left === 0) - Number(b.left === 0) || b.generation - a.generation)[0]
}

/** The name the entry is renamed to before it is started: one try less. */
export function countedName(entry: BootEntry): string {
  if (entry.left === undefined || entry.left === 0) return entry.name
  return `kiln-${entry.generation}-${entry.version}+${entry.left - 1}-${entry.done + 1}.conf`
}
