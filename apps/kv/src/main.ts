import { readFileSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { createLog, describeError, runDaemon, systemClock, version } from '@kiln/service'
import { apiVersion } from './api/maintenance-service.ts'
import { startNode } from './node.ts'
import { helpText } from './settings/flags.ts'
import { loadSettings } from './settings/settings.ts'
import { giveBackWhenQuiet } from './spare-memory.ts'

/** First words of the command line that are commands; everything else starts the daemon. */
const commandNames = ['snapshot', 'import']
const argv = process.argv.slice(2)
if (!isMainThread) {
  // A bundle is one file: its worker threads load it too, and do what the module that started them says.
} else if (commandNames.includes(argv[0] ?? '')) {
  // The daemon does without what only they need.
  const { runCommand } = await import('./snapshot/commands.ts')
  const stopping = new AbortController()
  // A second signal ends the process.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort())
  process.exitCode = await runCommand(argv, {
    print: (line) => void process.stdout.write(`${line}\n`),
    note: (line) => void process.stderr.write(`${line}\n`),
    stopping: stopping.signal,
  }).catch((error: unknown) => {
    process.stderr.write(`kiln-kv: ${describeError(error)}\n`)
    return 1
  })
} else if (argv.some((argument) => /^--?(help|h)$/.test(argument))) {
  process.stdout.write(helpText())
} else if (argv.some((argument) => /^--?version$/.test(argument))) {
  process.stdout.write(`etcd Version: ${apiVersion}\nkiln-kv Version: ${version}\n`)
} else {
  await runDaemon('kiln-kv', async (_log, stopping) => {
    const { settings, warnings } = loadSettings({
      argv,
      env: process.env,
      readFile: (path) => readFileSync(path, 'utf8'),
    })
    const log = createLog('kiln-kv', settings.logLevel)
    for (const warning of warnings) log.warn({ warning }, 'setting has no effect')
    const node = await startNode({
      settings,
      log,
      clock: systemClock,
      random: Math.random,
      stopping,
      // The daemon owns the process: what must end it is thrown where it is heard.
      onFatal: (fault) =>
        setImmediate(() => {
          throw fault
        }),
    })
    await node.published
    const endGivingBack = giveBackWhenQuiet()
    return {
      stop: async () => {
        endGivingBack()
        await node.stop()
      },
    }
  })
}
