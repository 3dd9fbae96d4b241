import { existsSync, watch } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { EtcdClient } from '@kiln/etcd-api'
import { readMachineTls } from '@kiln/pki/machine'
import { containersOf, type PodStatus } from '@kiln/schemas'
import { describeError, type Log, type RunningDaemon, systemClock } from '@kiln/service'
import { type RuntimeApi, serveApi } from './api.ts'
import { bundledBridge } from './cni/bundled-networks.ts'
import { openPlugins } from './cni/plugin.ts'
import { openCniNetworks } from './cni/pod-networks.ts'
import { logFile } from './container-plan.ts'
import { openEventLog } from './events/event-log.ts'
import { openOperatorPort, serveGrpc } from './grpc/runtime-service.ts'
import { bootId, journalRuns, placePod, runTool, systemdRuns, whyNoPods } from './host.ts'
import { type ImageUser, openImageService } from './image-service.ts'
import { imagesOf, openImages } from './images.ts'
import { PodLife } from './life/pod-life.ts'
import { Manager } from './manager.ts'
import { openNetwork } from './network.ts'
import { isOfNetwork, podNetworkOf } from './network-plan.ts'
import { openOverlay } from './overlay/overlay.ts'
import { rememberedPodNetwork } from './overlay/pod-network-move.ts'
import { followPodFiles } from './pod-files.ts'
import { openKernel, podPaths } from './pod-kernel.ts'
import { openRecords } from './pod-record.ts'
import { openPublisher, type Publisher, statusEntries } from './publication.ts'
import { openServices } from './services/services.ts'
import { type Machine, readMachine, type Settings } from './settings.ts'
import { followStorePods } from './store-pods.ts'

const pluginTimeoutMs = 60_000
const collectEveryMs = 3_600_000
/** rkt's: half an hour for pods that are over, a day for those that nobody ran. */
const collectPods = { graceSeconds: 1800, expirePreparedSeconds: 86_400, markOnly: false }
const keepImagesMs = 24 * 3_600_000
/** How long a drain waits for a store that does not take the withdrawal of the services. */
const withdrawMs = 3_000
/** A member that died must not keep its watchers from hearing within 15 s that a machine is gone. */
const storeKeepAlive = { intervalMs: 5_000, timeoutMs: 4_000 }

/** Starts everything in the order of need: records, pods, files, the socket, and last the store, which may be away. */
export async function startRuntime(
  settings: Settings,
  host: { uid: number },
  log: Log,
  stopping: AbortSignal,
): Promise<RunningDaemon> {
  const machine = readMachine(settings.machineFile)
  const refusal = await whyNoPods({
    uid: host.uid,
    cgroupRoot: settings.cgroupRoot,
    initPath: settings.initPath,
  })
  if (refusal) log.warn({ code: refusal.code }, 'this machine runs no pods')
  for (const folder of ['pods', 'exits', 'images'])
    await mkdir(join(settings.stateDir, folder), { recursive: true })

  const images = await openImages({
    folder: join(settings.stateDir, 'images'),
    bootUrl: machine.bootUrl,
    bytesMax: settings.imageBytesMax,
    registriesFile: settings.registriesFile,
    registryAuthFile: settings.registryAuthFile,
    imagePolicyFile: settings.imagePolicyFile,
    signal: stopping,
    log,
  })
  const networkFile = join(settings.stateDir, 'network.json')
  const podNetwork = rememberedPodNetwork(networkFile, podNetworkOf(settings.podNetwork, machine.address))
  const network = openNetwork(podNetwork)
  const bundled = bundledBridge({
    firstOctets: settings.bridgeNetwork,
    machineAddress: machine.address,
    leasesDir: join(settings.stateDir, 'cni/leases'),
  })
  const cni = openCniNetworks({
    configDir: settings.cniConfigDir,
    bundled: [bundled.list],
    attachmentsDir: join(settings.stateDir, 'cni/attachments'),
    bootId: bootId(),
    plugins: openPlugins({ path: settings.cniPath, timeoutMs: pluginTimeoutMs }),
    run: runTool,
    log,
  })
  const systemd = systemdRuns()
  const kernel = openKernel({
    ...settings,
    machineId: machine.id,
    machineAddress: machine.address,
    journal: journalRuns(),
    network,
    cni,
    get podGateway() {
      return podNetwork.gateway
    },
    treeOf: (image) => images.treeOf(image),
    listImages: () => images.list(),
    place: (unit, stopSeconds) => placePod({ cgroupRoot: settings.cgroupRoot, unit, systemd, stopSeconds }),
  })
  const services = await openServices({
    settings,
    machine,
    podGateways: () => [podNetwork.gateway, bundled.gateway],
    reached: (address) => podNetwork.cluster !== undefined && isOfNetwork(podNetwork, address),
    run: runTool,
    log,
  })
  let publisher: Publisher | undefined
  const publish = (statuses: PodStatus[]): void => {
    publisher?.publish(statusEntries(statuses, machine.id))
    services.publish(statuses)
  }
  const events = await openEventLog({
    stateDir: settings.stateDir,
    fileBytesMax: settings.eventFileBytes,
    now: () => Date.now(),
    log,
  })
  let life: PodLife | undefined
  const manager = new Manager({
    kernel,
    images,
    records: openRecords(settings.stateDir, log),
    clock: { now: () => Date.now(), after: systemClock.after },
    log,
    machineId: machine.id,
    machineAddress: machine.address,
    bootId: bootId(),
    network,
    cni,
    podNetwork,
    refusal,
    storePodsMayUseHost: settings.storePodsMayUseHost,
    changed: publish,
    backOffFirstMs: settings.backOffFirstMs,
    tell: (event) => events.add(event),
    over: (record) => life?.over(record),
  })
  life = new PodLife({
    stateDir: settings.stateDir,
    bootId: bootId(),
    images,
    treeOf: (image) => images.treeOf(image),
    listImages: () => images.list(),
    manager,
    journal: journalRuns(),
    tell: (event) => events.add(event),
    now: () => Date.now(),
    log,
  })
  const pods = life
  await pods.adopt()
  await manager.adopt()
  const imageUsers = (): ImageUser[] => [...manager.imageUsers(), ...pods.imageUsers()]
  const { problems } = await cni.configured().catch((error: unknown) => {
    log.warn({ error: describeError(error) }, 'networks are not read')
    return { problems: [] }
  })
  for (const problem of problems) log.warn(problem, 'a network is left out')
  // Plug-ins of many pods take their time: nothing waits for them.
  void cni
    .check()
    .catch((error: unknown) => log.warn({ error: describeError(error) }, 'networks of pods are not checked'))
  const exits = watch(join(settings.stateDir, 'exits'), (_, name) =>
    manager.wake(String(name).split('.')[0] ?? ''),
  )
  // Without notifications pods look at their containers every few seconds.
  exits.on('error', (error) => log.warn({ error: describeError(error) }, 'exits are not watched'))
  const files = await followPodFiles(settings.podsDir, log, ({ pods, problems }) =>
    manager.want('file', new Map([...pods].map(([name, { manifest }]) => [name, manifest])), problems),
  )
  const collecting = setInterval(() => {
    void manager.collectNetworks()
    pods
      .collect(collectPods)
      .then(() => images.collect(() => imagesOf(imageUsers()), keepImagesMs))
      .catch((error: unknown) =>
        log.warn({ error: describeError(error) }, 'what is unused cannot be removed'),
      )
  }, collectEveryMs)

  const api: RuntimeApi = {
    list: () => manager.statuses(),
    run: (manifest) => manager.run(manifest),
    stop: (name, grace) => manager.stop(name, grace),
    start: (name) => manager.start(name),
    remove: (name, grace) => manager.remove(name, grace),
    drain: (wanted) =>
      manager.drain({
        ...wanted,
        withdrawn: () => Promise.race([services.settled(), sleep(withdrawMs)]).then(() => undefined),
      }),
    resume: () => manager.resume(),
    life: pods,
    events,
    images: openImageService({
      images,
      folder: join(settings.stateDir, 'images'),
      users: imageUsers,
      inUse: () => imagesOf(imageUsers()),
      imagePolicyFile: settings.imagePolicyFile,
      signal: stopping,
      log,
    }),
    networks: {
      list: async () => {
        const { networks, problems } = await cni.configured()
        const summaries = [...networks.values()].map(({ name, cniVersion, plugins }) => ({
          name,
          cniVersion,
          plugins: plugins.map(({ type }) => type),
        }))
        return { networks: summaries, problems }
      },
      collect: () => manager.collectNetworks(),
    },
    info: () => ({
      machine: machine.id,
      runsPods: refusal === undefined,
      ...(refusal ? { code: refusal.code, message: refusal.message } : {}),
    }),
    logs: (name) => {
      const record = manager.record(name)
      const containers = containersOf(record.manifest).map((container) => container.name)
      const paths = podPaths(settings, record)
      const all = containers.flatMap((container) => [
        `${logFile(paths, container)}.1`,
        logFile(paths, container),
      ])
      return {
        journal: journalRuns(),
        files: all.filter((file) => existsSync(file)),
        containers,
      }
    },
    statistics: (name) => kernel.statistics(manager.record(name)),
    planExec: async (name, wanted) => ({
      planFile: await kernel.planExec(manager.record(name), wanted),
      initPath: settings.initPath,
    }),
  }
  const overlay = openOverlay({
    machine,
    podNetwork,
    reserved: [`${settings.bridgeNetwork}.0.0/16`],
    stateFile: networkFile,
    subnetFile: settings.subnetFile,
    run: runTool,
    log,
    moved: async () => {
      if (!refusal) await network.refresh()
      await services.gatewaysMoved()
      publish(manager.statuses())
    },
  })
  const server = await serveApi({ socket: settings.socket, api, log })
  const grpc = await serveGrpc({ socket: settings.grpcSocket, api, log })
  const store = connectStore(settings, machine)
  const operatorPort =
    store && settings.grpcPort > 0
      ? openOperatorPort({
          port: settings.grpcPort,
          pkiDir: settings.pkiDir,
          clock: systemClock,
          api,
          log,
        })
      : undefined
  if (store) {
    publisher = openPublisher({ store, leaseSeconds: settings.leaseSeconds, log })
    services.connect(store, stopping)
    if (!refusal) overlay.connect(store, stopping)
    publish(manager.statuses())
    void followStorePods({
      store,
      machineId: machine.id,
      log,
      signal: stopping,
      changed: (pods, problems) => manager.want('store', pods, problems),
    })
  }
  log.info(
    { machine: machine.id, pods: manager.statuses().length, store: machine.storeEndpoints.length },
    'runtime serves',
  )

  return {
    stop: async () => {
      publisher?.close()
      await services.close()
      await overlay.close()
      clearInterval(collecting)
      files.close()
      exits.close()
      await server.close()
      await grpc.close()
      await operatorPort?.close()
      await manager.leave()
      await events.close()
      store?.close()
    },
  }
}

/** The certificate is read at each new connection: it is renewed now and then, and may come after this daemon. */
function connectStore(settings: Settings, machine: Machine): EtcdClient | undefined {
  if (machine.storeEndpoints.length === 0) return undefined
  return new EtcdClient({
    endpoints: machine.storeEndpoints,
    tls: () => readMachineTls(settings.pkiDir),
    keepAlive: storeKeepAlive,
  })
}
