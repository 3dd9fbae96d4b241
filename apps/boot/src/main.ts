import { createLog, loadSettings, runDaemon, version } from '@kiln/service'
import { startBootServer } from './boot-server.ts'
import { runCommand } from './command-line.ts'
import { BootSettings, withDoubleDashes, withMatchboxVariables } from './settings.ts'

const argv = withDoubleDashes(process.argv.slice(2))
const command = runCommand(argv, version)
if (command) {
  if (command.exitCode === 0) process.stdout.write(command.output)
  else process.stderr.write(command.output)
  process.exitCode = command.exitCode
} else {
  await runDaemon('kiln-boot', async () => {
    const env = withMatchboxVariables(process.env)
    const settings = loadSettings(BootSettings, { app: 'boot', prefix: 'KILN_BOOT', argv, env })
    return startBootServer(settings, createLog('kiln-boot', settings.logLevel))
  })
}
