import { readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'

/** Whether a file of the libraries' folder is a part of this program: its entry, or what that loads at once or when needed. */
export function isPartOf(program: string, file: string): boolean {
  return file.startsWith(program) && /^(-[A-Z0-9]{8})?\.mjs$/.test(file.slice(program.length))
}

/** A file of a program as the bundler made it. */
export type Part = { path: string; contents: Uint8Array }

/** The entry comes last, and the parts of an earlier build go after it: the program can be started at every moment. */
export async function placeParts(libDir: string, program: string, parts: readonly Part[]): Promise<void> {
  const entry = `${program}.mjs`
  const entryLast = parts.toSorted((a, b) => Number(a.path.endsWith(entry)) - Number(b.path.endsWith(entry)))
  for (const { path, contents } of entryLast) {
    const unfinished = `${path}.${process.pid}`
    await writeFile(unfinished, contents)
    await rename(unfinished, path)
  }
  const names = new Set(parts.map(({ path }) => basename(path)))
  for (const file of await readdir(libDir))
    if (isPartOf(program, file) && !names.has(file)) await rm(join(libDir, file))
}
