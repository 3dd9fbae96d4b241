/** What a command gets from the process: its surroundings, and the wish to end. */
export type CommandContext = {
  environment: NodeJS.ProcessEnv
  /** Aborted by Ctrl-C. */
  signal: AbortSignal
  /** A terminal that lines may be redrawn on. */
  live: boolean
  print(text: string): void
  /** Progress and warnings, when standard output carries data. */
  note(text: string): void
}
