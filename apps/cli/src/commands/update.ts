import { compareVersions, type MachineStatus, RebootTurn, RolloutRecord, storeKeys } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import { BootClient } from '../lab/boot-client.ts'
import { labGroup } from '../lab/boot-data.ts'
import { jsonOf, machineStatuses, withStore } from '../lab/cluster-store.ts'
import { releaseKeyOf, stageRelease } from '../lab/release.ts'
import { requireLab, stateFolder } from '../lab/state-folder.ts'
import { table } from '../progress/table.ts'
import type { CommandContext } from './context.ts'

type Options = { state?: string; group?: string }

/** `kiln update publish VERSION`: what the machines of a group should run; `image` stages and signs it first. */
export async function publish(
  options: Options & { version?: string; image?: string; allowDowngrade: boolean },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  let version = options.version
  if (options.image) {
    const key = await releaseKeyOf(state)
    version = await stageRelease(state, options.image, key.privateKey, version)
  }
  if (version === undefined) throw new Fault('USAGE', 'name a version, or a folder with --image')
  const group = options.group ?? labGroup
  const change = options.allowDowngrade ? { version, allowDowngrade: true } : { version }
  await new BootClient(state, lab).publish(group, change)
  context.print(`${group}: ${version} published`)
  if (options.allowDowngrade) return
  // Only a remark: a store that does not answer is no reason to fail.
  const statuses = await withStore(state, lab, machineStatuses).catch(() => new Map<string, MachineStatus>())
  const newer = [...statuses].filter(([, status]) => compareVersions(status.version, version) > 0)
  if (newer.length > 0)
    context.note(
      `${newer.map(([name]) => name).join(', ')}: newer already, and will not go back without --allow-downgrade`,
    )
}

/** `kiln update halt`. */
export async function halt(options: Options & { reason: string }, context: CommandContext): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const group = options.group ?? labGroup
  await new BootClient(state, requireLab(state)).halt(group, options.reason)
  context.print(`${group}: halted`)
}

/**
 * `kiln update resume`: lets the halted rollout of the published release go on. Machines on which it failed stay where they are
 * until `kiln-update reset` there.
 */
export async function resume(options: Options, context: CommandContext): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  const group = options.group ?? labGroup
  const boot = new BootClient(state, lab)
  const channel = await boot.channel(group)
  if (!channel) throw new Fault('ROLLOUT_NOT_HALTED', `nothing was published to ${group}`)
  const { version, allowDowngrade } = channel
  const cleared = await withStore(state, lab, async (store) => {
    const key = storeKeys.rollout({ group, version })
    const found = await store.get(key)
    if (!found || RolloutRecord.safeParse(jsonOf(found)).data?.state !== 'halted') return false
    return (await store.compareAndDelete(key, found.modRevision)).deleted
  })
  if (!cleared && channel.state !== 'halted') {
    throw new Fault('ROLLOUT_NOT_HALTED', `the rollout of ${version} in ${group} is not halted`)
  }
  await boot.publish(group, allowDowngrade ? { version, allowDowngrade } : { version })
  context.print(`${group}: the rollout of ${version} goes on`)
}

/** `kiln update status`: what should run, what runs where, whose turn it is. */
export async function updateStatus(
  options: Options & { json: boolean },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const lab = requireLab(state)
  const group = options.group ?? labGroup
  const channel = await new BootClient(state, lab).channel(group)
  const { machines, turn, rollout } = await withStore(state, lab, async (store) => ({
    machines: await machineStatuses(store),
    turn: RebootTurn.safeParse(jsonOf(await store.get(storeKeys.reboot({ group, slot: 0 })))).data,
    rollout: channel
      ? RolloutRecord.safeParse(
          jsonOf(await store.get(storeKeys.rollout({ group, version: channel.version }))),
        ).data
      : undefined,
  }))
  if (options.json) {
    context.print(
      JSON.stringify({ group, channel, rollout, turn, machines: [...machines.values()] }, null, 2),
    )
    return
  }
  context.print(
    channel
      ? `${group} should run ${channel.version} (${channel.state}${channel.reason ? `: ${channel.reason}` : ''})`
      : `nothing was published to ${group}`,
  )
  if (rollout)
    context.print(
      `rollout: ${rollout.state}${rollout.reason ? `, ${rollout.machine ?? '?'}: ${rollout.reason}` : ''}`,
    )
  if (turn) {
    const stale = Date.parse(turn.deadlineAt) < Date.now()
    context.print(
      `turn: ${turn.machine} since ${turn.grantedAt}${stale ? ', STALE: free it with kiln update release-turn' : ''}`,
    )
  }
  context.print(
    table([
      ['MACHINE', 'VERSION', 'SLOT', 'GENERATION', 'STATE', 'SINCE'],
      ...lab.machines.map(({ name }) => {
        const machine = machines.get(name)
        if (!machine) return [name, '', '', '', 'absent', '']
        return [name, machine.version, machine.slot, String(machine.generation), machine.state, machine.since]
      }),
    ]),
  )
}

/** `kiln update release-turn`: an operator's word that the machine holding the turn will not come back. */
export async function releaseTurn(
  options: Options & { machine?: string },
  context: CommandContext,
): Promise<void> {
  const state = stateFolder(options.state, context.environment)
  const group = options.group ?? labGroup
  await withStore(state, requireLab(state), async (store) => {
    const key = storeKeys.reboot({ group, slot: 0 })
    const found = await store.get(key)
    const turn = RebootTurn.safeParse(jsonOf(found)).data
    if (!found || !turn) throw new Fault('TURN_FREE', `nobody holds the turn of ${group}`)
    if (options.machine !== undefined && options.machine !== turn.machine) {
      throw new Fault('TURN_FREE', `the turn of ${group} is held by ${turn.machine}, not ${options.machine}`)
    }
    const { deleted } = await store.compareAndDelete(key, found.modRevision)
    if (!deleted) throw new Fault('TURN_FREE', `the turn of ${group} changed hands just now`)
    context.print(`${group}: the turn of ${turn.machine} was released`)
  })
}
