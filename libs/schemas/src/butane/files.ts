/** One entry of a directory below the files directory. */
export type FileEntry =
  | { kind: 'file'; name: string; executable: boolean }
  | { kind: 'directory'; name: string }
  | { kind: 'link'; name: string; target: string }
  | { kind: 'other'; name: string }

export type FileRead = { ok: true; bytes: Uint8Array } | { ok: false; message: string }
export type DirectoryRead = { ok: true; entries: FileEntry[] } | { ok: false; message: string }

/**
 * The files directory that `local` fields name. Paths are relative to it and without `..`; an implementation also
 * keeps symbolic links from leading out of it.
 */
export type FilesPort = {
  read(path: string): FileRead
  list(path: string): DirectoryRead
}

export const noFilesMessage =
  'local file paths are relative to a files directory that must be specified with -d/--files-dir'
export const escapeMessage = 'local file path traverses outside the files directory'

/** A path of the source, cleaned and relative to the files directory; undefined if it leads out of it. */
export function localPath(path: string): string | undefined {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined) return undefined
  }
  return parts.join('/')
}

/** Reads what a `local` field names. */
export function readLocal(files: FilesPort | undefined, path: string): FileRead {
  if (!files) return { ok: false, message: noFilesMessage }
  const clean = localPath(path)
  return clean === undefined ? { ok: false, message: escapeMessage } : files.read(clean)
}
