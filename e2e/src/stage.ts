import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ConsoleWatch } from './console-watch.ts'
import type { Fixtures } from './fixtures.ts'
import { kiln } from './kiln-command.ts'
import type { Figure } from './report.ts'
import { runEnded, type Stage } from './runner.ts'
import type { JournalShell, Story, StoryContext } from './story.ts'

export type StageSettings = {
  /** Folder with a folder for each story. */
  outDir: string
  fixtures: Fixtures
  /** Shown as it happens, beside the story's own log. */
  echo(line: string): void
  nowMs(): number
}

/** Folders, logs, figures and cleaning up of one story. */
export function prepareStage(story: Story, signal: AbortSignal, settings: StageSettings): Stage {
  const folder = join(settings.outDir, story.name)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  // Paths of sockets are short, so this is not below the repository.
  const scratch = mkdtempSync(join(tmpdir(), 'kiln-e2e-'))
  const began = settings.nowMs()
  const consoles = new ConsoleWatch()
  const figures: Figure[] = []
  const kept = new Map<string, string>()
  const closers: (() => Promise<void>)[] = []
  const journals = new Map<string, JournalShell>()
  const say = (line: string): void => {
    const seconds = Math.round((settings.nowMs() - began) / 1000)
    const text = `${seconds.toString().padStart(5)} s  ${line}`
    appendFileSync(join(folder, 'story.log'), text + '\n')
    settings.echo(text)
  }

  const context: StoryContext = {
    folder,
    scratch,
    signal,
    say,
    figure: (name, value) => {
      figures.push({ name, value })
      say(`${name}: ${value}`)
    },
    watch: (console) => consoles.add(console),
    keep: ({ name, path }) => void kept.set(name, path),
    keepJournal: ({ name, shell }) => void journals.set(name, shell),
    onEnd: (close) => void closers.push(close),
    async cluster() {
      if (!story.fixture) throw new Error(`${story.name} names no fixture`)
      const state = settings.fixtures.state(story.fixture)
      kept.set('boot.log', join(state, 'boot.log'))
      kept.set('host.log', join(state, 'host.log'))
      // Watched before it is started, so that a boot that fails is kept too; the names are those of `kiln up`.
      const names = story.fixture === 'one-machine' ? ['node1'] : ['node1', 'node2', 'node3']
      const watchAll = (): void => {
        for (const name of names) consoles.add({ name, path: join(state, 'machines', name, 'serial.log') })
      }
      if (settings.fixtures.isRunning(story.fixture)) watchAll()
      else {
        say(`booting ${story.fixture}`)
        await settings.fixtures.clean(story.fixture)
        watchAll()
      }
      const { cluster, fresh } = await settings.fixtures.get(story.fixture, signal)
      if (fresh) say(`booted, ${cluster.upSeconds} s`)
      for (const { name } of cluster.machines) {
        context.keepJournal({ name, shell: (command, options) => cluster.shell(name, command, options) })
      }
      return cluster
    },
    async image(version, variant = 'normal') {
      const logPath = join(folder, 'image.log')
      const { stdout } = await kiln(['image', '--version', version, '--variant', variant], {
        signal,
        logPath,
      })
      const dir = stdout.trim().split('\n').at(-1) ?? ''
      say(`image ${version} (${variant}) in ${dir}`)
      return dir
    },
  }

  return {
    context,
    figures: () => figures,
    badness: (allowed) => consoles.badness(allowed),
    async end(failed) {
      const problems: unknown[] = []
      // Before the folders that they are in go.
      if (failed) {
        // Who ends the run does not wait for machines.
        if (signal.reason !== runEnded) await saveJournals(journals, folder)
        for (const [name, path] of kept) if (existsSync(path)) copyFileSync(path, join(folder, name))
      }
      for (const close of closers.reverse()) await close().catch((error: unknown) => problems.push(error))
      consoles.save(folder)
      rmSync(scratch, { recursive: true, force: true })
      if (problems.length > 0) throw problems[0]
    },
  }
}

const journalTimeoutMs = 60_000
const journalCommand = 'journalctl -b --no-pager -n 800 -o short-monotonic'

/** What the machines' services said; a machine that does not answer has nothing to keep. */
async function saveJournals(journals: ReadonlyMap<string, JournalShell>, folder: string): Promise<void> {
  const options = { signal: AbortSignal.timeout(journalTimeoutMs), timeoutMs: journalTimeoutMs }
  const save = async ([name, shell]: [string, JournalShell]): Promise<void> => {
    const { output } = await shell(journalCommand, options)
    writeFileSync(join(folder, `${name}.journal.log`), output)
  }
  await Promise.allSettled([...journals].map(save))
}
