import { readFileSync } from 'node:fs'
import { EtcdClient } from '@kiln/etcd-api'
import { Fault } from '@kiln/service'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { drillSnapshot } from './drill.ts'
import { importCluster } from './import.ts'
import { restoreSnapshotFile } from './restore.ts'
import { saveSnapshotTo, saveWithRetention } from './save.ts'
import { openSnapshotFile } from './snapshot-file.ts'
import { formatStatus, humanBytes, snapshotStatus } from './status.ts'

export type CommandPorts = {
  print(line: string): void
  note(line: string): void
  /** The operator ends what goes on by itself. */
  stopping: AbortSignal
}

const progressMs = 1000

/** Runs `snapshot ...` or `import ...`; answers the exit code: 0, 1 failed, 2 usage. */
export async function runCommand(argv: string[], ports: CommandPorts): Promise<number> {
  const program = new Command('kiln-kv').exitOverride().enablePositionalOptions()
  addSnapshot(program, ports)
  addImport(program, ports)
  try {
    await program.parseAsync(argv, { from: 'user' })
    return 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    if (error instanceof Fault && error.code === 'USAGE') {
      ports.note(error.message)
      return 2
    }
    throw error
  }
}

function addSnapshot(program: Command, { print, note }: CommandPorts): void {
  const snapshot = program.command('snapshot').description("snapshots of the store, in etcd's format")
  withConnection(snapshot.command('save').argument('[file]'), 'endpoints')
    .description('save a snapshot of a running member')
    .option('--dir <dir>', "save under the time's name in this folder instead")
    .option('--keep <n>', 'with --dir: delete the oldest beyond so many', wholeNumber, 7)
    .action(async (path: string | undefined, options: ConnectionOptions & { dir?: string; keep: number }) => {
      if ((path === undefined) === (options.dir === undefined)) {
        throw new Fault('USAGE', 'name either a file or, with --dir, a folder')
      }
      const client = connect(options.endpoints, options)
      const onProgress = progressTo(note)
      try {
        if (path !== undefined) {
          await saveSnapshotTo(client, path, onProgress)
          print(`Snapshot saved at ${path}`)
          return
        }
        const now = new Date()
        const saved = await saveWithRetention(client, {
          folder: options.dir!,
          keep: options.keep,
          now,
          onProgress,
        })
        print(`Snapshot saved at ${saved.path}`)
        for (const name of saved.deleted) print(`Snapshot deleted: ${name}`)
      } finally {
        client.close()
      }
    })
  snapshot
    .command('status')
    .argument('<file>')
    .description('check a snapshot file and tell what is in it')
    .addOption(
      new Option('-w, --write-out <format>', 'how').choices(['simple', 'table', 'json']).default('simple'),
    )
    .option('--json', 'the same as --write-out json', false)
    .action(async (path: string, options: { writeOut: 'simple' | 'table' | 'json'; json: boolean }) => {
      const file = await openSnapshotFile(path, { skipHashCheck: true })
      try {
        if (file.hasHash)
          await openSnapshotFile(path, { skipHashCheck: false }).then((again) => again.close())
        print(formatStatus(await snapshotStatus(file), options.json ? 'json' : options.writeOut))
      } finally {
        await file.close()
      }
    })
  withIdentity(snapshot.command('restore').argument('<file>'))
    .description('make the data directory of a member of a new cluster')
    .option('--initial-cluster <list>', 'all members of the new cluster, name=url,...')
    .option('--skip-hash-check', 'the file is the copy of a db file and has no hash', false)
    .option('--bump-revision <n>', 'add so much to the revision', wholeNumber, 0)
    .option('--mark-compacted', 'count everything up to the revision as compacted', false)
    .action(async (path: string, options: IdentityOptions & RestoreFlags) => {
      const restored = await restoreSnapshotFile({
        ...options,
        path,
        dataDir: options.dataDir ?? `${options.name}.etcd`,
        initialCluster: options.initialCluster ?? initialCluster(options),
        token: options.initialClusterToken,
        advertisePeerUrls: options.initialAdvertisePeerUrls.split(','),
      })
      print(
        `restored revision ${restored.revision}: ${restored.versions} versions, ${restored.leases} leases; ` +
          `member ${restored.member.id.toString(16)} of cluster ${restored.clusterId.toString(16)}`,
      )
    })
  snapshot
    .command('drill')
    .argument('<file>')
    .description('restore it into a temporary directory, start a member there, compare, remove')
    .option('--skip-hash-check', 'the file is the copy of a db file and has no hash', false)
    .option('--work-dir <dir>', 'where the temporary directory goes')
    .option('--json', 'print JSON', false)
    .action(async (path: string, options: { skipHashCheck: boolean; workDir?: string; json: boolean }) => {
      const { skipHashCheck, workDir } = options
      const result = await drillSnapshot(path, { skipHashCheck, ...(workDir ? { folder: workDir } : {}) })
      if (options.json) return print(JSON.stringify(result))
      const { revision, keys, leases, hash, seconds } = result
      print(`${path} can be restored: revision ${revision}, ${keys} keys, ${leases} leases`)
      print(`hash ${hash.toString(16)}, the same from the file and from the member; ${seconds} s`)
    })
}

function addImport(program: Command, { print, note, stopping }: CommandPorts): void {
  withConnection(withIdentity(program.command('import')), 'from-endpoint')
    .description('mirror a running cluster with its revisions into a new data directory')
    .option('--follow', 'go on with its changes until SIGINT or SIGTERM, then end up to date', false)
    .action(
      async (options: IdentityOptions & ConnectionOptions & { fromEndpoint: string; follow: boolean }) => {
        const source = connect(options.fromEndpoint, options)
        try {
          const imported = await importCluster({
            source,
            dataDir: options.dataDir ?? `${options.name}.etcd`,
            name: options.name,
            initialCluster: initialCluster(options),
            token: options.initialClusterToken,
            advertisePeerUrls: options.initialAdvertisePeerUrls.split(','),
            follow: options.follow,
            stopping,
            note,
          })
          print(
            `imported revision ${imported.revision} with ${imported.leases} leases, hash ${imported.hash.toString(16)} on both sides`,
          )
        } finally {
          source.close()
        }
      },
    )
}

type ConnectionOptions = { endpoints: string; cacert?: string; cert?: string; key?: string }
type IdentityOptions = {
  dataDir?: string
  name: string
  initialClusterToken: string
  initialAdvertisePeerUrls: string
}
type RestoreFlags = {
  initialCluster?: string
  skipHashCheck: boolean
  bumpRevision: number
  markCompacted: boolean
}

function withConnection(command: Command, endpointsFlag: string): Command {
  const endpoints = new Option(`--${endpointsFlag} <urls>`, 'client URLs of the cluster')
  if (endpointsFlag === 'endpoints') endpoints.default('http://127.0.0.1:2379')
  else endpoints.makeOptionMandatory()
  return command
    .addOption(endpoints)
    .option('--cacert <file>', "CA of the members' certificates")
    .option('--cert <file>', 'certificate to show them')
    .option('--key <file>', 'its key')
}

function withIdentity(command: Command): Command {
  return command
    .option('--data-dir <dir>', 'directory to make (default: NAME.etcd)')
    .option('--name <name>', 'name of the member', 'default')
    .option('--initial-cluster-token <token>', 'part of what the ids are derived from', 'etcd-cluster')
    .option('--initial-advertise-peer-urls <urls>', "the member's peer URLs", 'http://localhost:2380')
}

const initialCluster = ({ name, initialAdvertisePeerUrls }: IdentityOptions): string =>
  initialAdvertisePeerUrls
    .split(',')
    .map((url) => `${name}=${url}`)
    .join(',')

function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('must be a whole number')
  return Number(text)
}

function connect(urls: string, { cacert, cert, key }: Omit<ConnectionOptions, 'endpoints'>): EtcdClient {
  if (!cacert && (cert || key)) throw new Fault('USAGE', '--cert and --key need --cacert')
  const scheme = cacert ? 'https' : 'http'
  return new EtcdClient({
    endpoints: urls.split(',').map((url) => (url.includes('://') ? url : `${scheme}://${url}`)),
    ...(cacert
      ? { tls: { ca: readPem(cacert), ...(cert && key ? { cert: readPem(cert), key: readPem(key) } : {}) } }
      : {}),
    timeoutMs: 30_000,
  })
}

function readPem(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new Fault('STORE_TLS_FILE', `cannot read ${path}`, { cause })
  }
}

/** A line a second, for files that take longer. */
function progressTo(note: (line: string) => void): (done: number, left: number) => void {
  let next = Date.now() + progressMs
  return (done, left) => {
    if (Date.now() < next) return
    next = Date.now() + progressMs
    note(`${humanBytes(done)} of ${humanBytes(done + left)}`)
  }
}
