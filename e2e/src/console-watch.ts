import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findBadness, SerialLog } from '@kiln/vm'

/** Consoles that a story watches, from where they stood when it began. */
export class ConsoleWatch {
  readonly #logs = new Map<string, SerialLog>()

  add(console: { name: string; path: string }): void {
    if (!this.#logs.has(console.name)) this.#logs.set(console.name, new SerialLog(console.path, 'end'))
  }

  badness(allowed: readonly string[]): { console: string; kind: string; line: string }[] {
    return [...this.#logs].flatMap(([console, log]) => {
      log.poll()
      return findBadness(log.lines, allowed).map((bad) => ({ console, ...bad }))
    })
  }

  /** Writes what each console said during the story, a file each. */
  save(folder: string): void {
    for (const [name, log] of this.#logs) {
      log.poll()
      if (log.lines.length > 0)
        writeFileSync(join(folder, `${name}.console.log`), log.lines.join('\n') + '\n')
      log.close()
    }
  }
}
