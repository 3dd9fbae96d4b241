import '@kiln/service/small-heap'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { EtcdClient } from '@kiln/etcd-api'
import { certificateLife, readMachineTls } from '@kiln/pki/machine'
import { MachineFacts } from '@kiln/schemas'
import { describeError, Fault, loadSettings, runDaemon, systemClock, version } from '@kiln/service'
import { UpdateAgent } from './agent.ts'
import { isReprovisioned, renewCertificate } from './boot-server.ts'
import { CertificateKeeper, describeLife, renewalProblemFile } from './certificate.ts'
import { keepMachineRecord } from './machine-record.ts'
import { watchReprovision } from './reprovision.ts'
import { Settings } from './settings.ts'
import { loadState, saveState } from './state.ts'
import { orderEndpoints } from './store.ts'

const usage = `Usage: kiln-update [COMMAND] [--SETTING VALUE ...]

Moves this machine between the images in its two slots, one machine of a group at a time.

Commands:
  daemon    watch for releases, install, reboot in turn, bless (default)
  status    what runs, what is staged, what failed here, how long the certificate holds; --json for all of it
  plan      why nothing happens now, or what happens next
  reset     forget the releases that failed here, so that they are tried again
  version   print the version

Settings come from /usr/lib/kiln/update.toml, /etc/kiln/update.toml, /etc/kiln/update.toml.d/*.toml,
KILN_UPDATE_* and flags: ${Object.keys(Settings.shape).join(', ')}.
`

/** Nobody waits for it: a reprovision begins at the next boot. */
const looksPerReprovisionLook = 6

const [command = 'daemon', ...rest] = process.argv[2]?.startsWith('--')
  ? ['daemon', ...process.argv.slice(2)]
  : process.argv.slice(2)
const wantsHelp = process.argv.includes('--help') || process.argv.includes('-h') || command === 'help'

function settingsOf(argv: string[]): Settings {
  return loadSettings(Settings, { app: 'update', prefix: 'KILN_UPDATE', argv, env: process.env })
}

if (wantsHelp) process.stdout.write(usage)
else if (process.argv.includes('--version') || command === 'version') console.log(`kiln-update ${version}`)
else if (command === 'daemon') await daemon(rest)
else if (['status', 'plan', 'reset'].includes(command)) await inspect(command, rest)
else {
  console.error(`kiln-update: unknown command ${command}\n\n${usage}`)
  process.exit(2)
}

async function daemon(argv: string[]): Promise<void> {
  await runDaemon('kiln-update', async (log, stopping) => {
    const settings = settingsOf(argv)
    const facts = readFacts(settings.machineFile)
    const tls = () => readMachineTls(settings.pkiDir)
    tls()
    const store = new EtcdClient({ endpoints: orderEndpoints(facts), tls, timeoutMs: 5_000 })
    const nowMs = clockFrom(settings.buildTimeFile)
    const pause = async (ms: number): Promise<void> => {
      await sleep(ms, undefined, { signal: stopping }).catch(() => undefined)
    }
    const record = keepMachineRecord(store, { log, sleep: pause })
    const agent = await UpdateAgent.open({
      settings,
      facts,
      tls,
      store,
      publish: record.publish,
      nowMs,
      elapsedMs: systemClock.now,
      sleep: pause,
      log,
    })
    const certificate = new CertificateKeeper({
      ...settings,
      machine: facts.id,
      nowMs,
      random: Math.random,
      sleep: pause,
      renew: (csr) => renewCertificate({ facts, tls }, csr),
      log,
    })
    const reprovision = watchReprovision(
      {
        espDir: settings.espDir,
        lookMs: settings.pollSeconds * looksPerReprovisionLook * 1000,
        wanted: () => isReprovisioned({ facts, tls }),
        sleep: pause,
        log,
      },
      stopping,
    )
    const running = Promise.all([agent.run(stopping), certificate.run(stopping), reprovision])
    return {
      stop: async () => {
        await running
        await record.close()
        store.close()
      },
    }
  })
}

/** The wall clock, but never before the image was built: a machine whose clock lost its battery must not take the past for now. */
function clockFrom(buildTimeFile: string): () => number {
  const floorMs = statSync(buildTimeFile, { throwIfNoEntry: false })?.mtimeMs ?? 0
  return () => Math.max(Date.now(), floorMs)
}

function readFacts(path: string): MachineFacts {
  try {
    return MachineFacts.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch (cause) {
    throw new Fault('MACHINE_FACTS_INVALID', `reading the facts of this machine from ${path}`, { cause })
  }
}

/** How long this machine's certificate holds, and why it was not renewed if it should have been. */
function describeCertificate(settings: Settings): { lines: string[]; facts: object } {
  let problem = ''
  try {
    problem = readFileSync(renewalProblemFile(settings.runDir), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') problem = describeError(error)
  }
  const also = problem ? [`         not renewed: ${problem}`] : []
  try {
    const life = certificateLife(readMachineTls(settings.pkiDir).cert)
    const nowMs = clockFrom(settings.buildTimeFile)()
    const [from, until, renewFrom] = [life.fromMs, life.untilMs, life.renewFromMs].map((ms) =>
      new Date(ms).toISOString(),
    )
    return {
      lines: [`identity ${describeLife(life, nowMs)}`, ...also],
      facts: { from, until, renewFrom, expired: nowMs >= life.untilMs, ...(problem ? { problem } : {}) },
    }
  } catch (error) {
    return { lines: [`identity ${describeError(error)}`, ...also], facts: { problem: describeError(error) } }
  }
}

/** Commands that only look at what the daemon left. */
async function inspect(what: string, argv: string[]): Promise<void> {
  try {
    const settings = settingsOf(argv.filter((one) => one !== '--json'))
    if (what === 'reset') {
      const { staged: _staged, ...kept } = await loadState(settings.stateDir, 0)
      await saveState(settings.stateDir, { ...kept, failures: [] })
      console.log('failed and staged releases are forgotten; now run: systemctl restart kiln-update.service')
      return
    }
    // Looked at here, as it is what keeps a daemon from working.
    const certificate = describeCertificate(settings)
    if (what === 'status' && !argv.includes('--json')) for (const line of certificate.lines) console.log(line)
    const seen = JSON.parse(readFileSync(join(settings.runDir, 'update.json'), 'utf8'))
    if (argv.includes('--json'))
      console.log(JSON.stringify({ ...seen, certificate: certificate.facts }, null, 2))
    else if (what === 'plan') console.log(`${seen.action.kind}: ${seen.why}`)
    else {
      const { booted, state } = seen
      console.log(
        `runs     ${booted.version} (slot ${booted.slot}, generation ${booted.generation}${booted.onTrial ? ', on trial' : ''})`,
      )
      console.log(
        `staged   ${state.staged ? `${state.staged.version} (slot ${state.staged.slot})` : 'nothing'}`,
      )
      for (const failure of state.failures)
        console.log(`failed   ${failure.version} at ${failure.at}: ${failure.reason}`)
      console.log(`next     ${seen.why}`)
    }
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    console.error(
      `kiln-update: ${missing ? 'the daemon has not looked yet; is kiln-update.service running?' : describeError(error)}`,
    )
    process.exit(error instanceof Fault && error.code === 'SETTINGS_INVALID' ? 2 : 1)
  }
}
