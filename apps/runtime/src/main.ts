import '@kiln/service/small-heap'
import { loadSettings, notifySystemd, runDaemon } from '@kiln/service'
import { Settings } from './settings.ts'

const [first, ...rest] = process.argv.slice(2)
const isDaemon =
  first === undefined ||
  first === 'daemon' ||
  (first.startsWith('--') && !/^--(help|version|socket)\b/.test(first))

if (isDaemon) {
  const { startRuntime } = await import('./daemon.ts')
  await runDaemon('kiln-runtime', (log, stopping) => {
    const argv = first === 'daemon' ? rest : process.argv.slice(2)
    const settings = loadSettings(Settings, {
      app: 'runtime',
      prefix: 'KILN_RUNTIME',
      argv,
      env: process.env,
    })
    return startRuntime(settings, { uid: process.getuid?.() ?? -1 }, log, stopping)
  })
} else {
  const { runCommand } = await import('./commands.ts')
  process.exitCode = await runCommand(process.argv.slice(2), {
    socket: process.env['KILN_RUNTIME_SOCKET'] ?? '/run/kiln/runtime.sock',
    print: (line) => process.stdout.write(`${line}\n`),
    complain: (line) => process.stderr.write(`${line}\n`),
    notify: notifySystemd,
    environment: process.env as Record<string, string>,
    status: process.stderr.isTTY ? (text) => process.stderr.write(`\r\x1b[K${text}`) : undefined,
  })
}
