/** Kernel modules and what they need, from depmod's tables. */

/** Module file (relative to the version's folder) to the files it depends on, as in modules.dep. */
export type ModuleTable = Map<string, string[]>

export function parseModulesDep(text: string): ModuleTable {
  const table: ModuleTable = new Map()
  for (const line of text.split('\n')) {
    const [file, needs] = line.split(':')
    if (file && needs !== undefined) table.set(file, needs.trim().split(/\s+/).filter(Boolean))
  }
  return table
}

/** The name modprobe knows a file by: dashes and underscores are the same. */
export function moduleName(file: string): string {
  return file
    .slice(file.lastIndexOf('/') + 1)
    .replace(/\.ko.*$/, '')
    .replaceAll('-', '_')
}

/** The given files and everything they depend on, sorted. */
export function withDependencies(table: ModuleTable, files: Iterable<string>): string[] {
  const wanted = new Set<string>()
  const add = (file: string): void => {
    if (wanted.has(file)) return
    wanted.add(file)
    for (const need of table.get(file) ?? []) add(need)
  }
  for (const file of files) add(file)
  return [...wanted].sort()
}

/** Files of modules given by name; a name that the kernel has built in or lacks is returned in `missing`. */
export function findModules(
  table: ModuleTable,
  names: readonly string[],
): { files: string[]; missing: string[] } {
  const byName = new Map([...table.keys()].map((file) => [moduleName(file), file]))
  const files: string[] = []
  const missing: string[] = []
  for (const name of names) {
    const file = byName.get(moduleName(name))
    if (file) files.push(file)
    else missing.push(name)
  }
  return { files, missing }
}
