/**
 * The folder that holds the log and the snapshots. Small, so that the simulation can run the same code over a disk
 * that forgets. Names are plain file names. Nothing is durable but: what a `durable` file's write has called `done` for,
 * what was `sync`ed, and creations, renames and removals before a `syncDirectory`.
 */
export type Disk = {
  list(): Promise<string[]>
  /** `durable` opens with O_DSYNC. `create` makes the file empty; otherwise it must exist. */
  open(name: string, options: { create: boolean; durable: boolean }): Promise<DiskFile>
  rename(names: { from: string; to: string }): Promise<void>
  remove(name: string): Promise<void>
  syncDirectory(): Promise<void>
}

export type DiskFile = {
  size(): Promise<number>
  /** Fewer bytes than asked only at the end of the file. */
  read(offset: number, length: number): Promise<Uint8Array>
  /** Writes all of the bytes or fails. The bytes must not change until `done`. */
  write(bytes: Uint8Array, offset: number, done: (error: Error | undefined) => void): void
  sync(): Promise<void>
  close(): Promise<void>
}
