import type { Cluster } from './cluster.ts'

/** What a host must give. `vms`: QEMU, firmware and the packages of `kiln up`. */
export type Need = 'root' | 'vms'

/** Machines that several stories share, booted once a run. */
export type FixtureName = 'one-machine' | 'three-machines'

/** One story an operator would tell: its registration record. */
export type Story = {
  name: string
  summary: string
  /** What it should take on two quiet cores, fixture included; printed beside what it took. */
  budgetSeconds: number
  /** After this it has failed. */
  timeoutSeconds: number
  needs: readonly Need[]
  /** Debian packages beside those of `kiln up`. */
  packages?: readonly string[]
  /** Files that it reads, by their paths beside the checkout. */
  besides?: readonly string[]
  /** Too long for a run of all stories: runs only when it is asked for. */
  onlyByName?: boolean
  /** Memory of the machines that it starts itself. */
  memoryMiB?: number
  fixture?: FixtureName
  /** Kinds of console badness that the story itself provokes (libs/vm, console-badness.ts). */
  allowedBadness?: readonly string[]
  run(context: StoryContext): Promise<void>
}

/** Runs a command in a machine. */
export type JournalShell = (
  command: string,
  options: { signal: AbortSignal; timeoutMs: number },
) => Promise<{ output: string }>

export type StoryContext = {
  /** Output folder of this story. */
  folder: string
  /** Folder for disks and other large things; short, and gone after the story. */
  scratch: string
  /** Aborted when the time is over. */
  signal: AbortSignal
  /** A line for the story's log. */
  say(line: string): void
  /** A measured figure, printed with the story's result. */
  figure(name: string, value: string): void
  /** The machines of the story's fixture, booted now if they were not. */
  cluster(): Promise<Cluster>
  /** Folder of a built release; built now if it was not. */
  image(version: string, variant?: string): Promise<string>
  /** A console whose new lines are judged when the story ends, kept in its folder. */
  watch(console: { name: string; path: string }): void
  /** A log kept in the story's folder if it fails. */
  keep(log: { name: string; path: string }): void
  /** A machine whose journal is kept if the story fails, read through its console. */
  keepJournal(machine: { name: string; shell: JournalShell }): void
  /** Called when the story ends, last first. */
  onEnd(close: () => Promise<void>): void
}
