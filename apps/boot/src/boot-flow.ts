import {
  type EnrolmentTicket,
  KilnGroup,
  type MachineAssignment,
  type MachineRecord,
  type Profile,
} from '@kiln/schemas'
import { describeError, Fault } from '@kiln/service'
import { assignmentConflict, proposeAssignment, sameAssignment } from './assignment.ts'
import type { BootContext } from './boot-context.ts'
import { profileImages, releaseImages, withMachineArguments } from './boot-images.ts'
import { type RankedGroup, selectGroup } from './catalog.ts'
import { type BootImages, diskScript, installScript, plainBootScript, waitScript } from './ipxe-script.ts'
import type { Labels } from './labels.ts'
import { machineConfig } from './machine-config.ts'
import { decideBoot } from './machine-state.ts'
import { type StoreFacts, storeFacts } from './store-facts.ts'

export type Bases = { base: string; tlsBase: string }

/** A machine that waits asks again this often. */
const waitSeconds = 5

/** `/ipxe`: what this machine should do now. Never an error: iPXE would show a number and give up. */
export async function ipxeScript(context: BootContext, labels: Labels, bases: Bases): Promise<string> {
  const wait = (message: string): string => waitScript({ message, base: bases.base, seconds: waitSeconds })
  try {
    const group = selectGroup(context.data.catalog, labels)
    const record = await meet(context, labels, group)
    if (!record || record.state === 'discovered') {
      if (!group || group.metadata?.kiln) return wait(record ? decisionText(record) : 'no group matches')
      return plainBootScript(requireImages(profileOf(context, group)))
    }
    const decision = decideBoot(record)
    switch (decision.kind) {
      case 'wait':
        return wait(decision.message)
      case 'disk':
        return diskScript(`${record.id} is installed, starting from its disk`)
      case 'install':
        return await installOf(context, record, decision.reinstall, bases)
    }
  } catch (error) {
    const reason = error instanceof Fault ? error.message : 'the boot server failed, see its log'
    context.log.warn({ error, mac: labels.get('mac') }, 'no boot script for a machine')
    await note(context, labels, reason)
    return wait(reason)
  }
}

async function installOf(
  context: BootContext,
  record: MachineRecord,
  reinstall: boolean,
  bases: Bases,
): Promise<string> {
  const profile = profileOf(context, groupOf(context, record))
  const images = await imagesOf(context, profile, bases.base)
  const begun = await context.machines.apply(record.id, { kind: 'install-begun' })
  return installScript({
    images: withMachineArguments(images, { record: begun, base: bases.base, reinstall }),
    title: `installing ${begun.id} from ${bases.base}`,
    base: bases.base,
  })
}

/** `/ignition`: a Kiln machine's generated config, or the raw config of a matchbox profile. */
export async function ignitionConfig(context: BootContext, labels: Labels, bases: Bases): Promise<object> {
  const selected = selectGroup(context.data.catalog, labels)
  const record = await meet(context, labels, selected)
  if (record && record.state !== 'discovered') return generatedConfig(context, record, bases)
  if (!selected) throw new Fault('GROUP_UNKNOWN', 'no group matches')
  if (selected.metadata?.kiln)
    throw new Fault('MACHINE_HELD', record ? decisionText(record) : 'the request has no MAC')
  const text = profileConfig(context, profileOf(context, selected))
  if (text === undefined) throw new Fault('CONFIG_MISSING', `profile ${selected.profile} has no ignition_id`)
  try {
    return JSON.parse(text) as object
  } catch (cause) {
    throw new Fault('CONFIG_INVALID', `the config of profile ${selected.profile} is not JSON`, { cause })
  }
}

async function generatedConfig(context: BootContext, known: MachineRecord, bases: Bases): Promise<object> {
  const installs = decideBoot(known).kind === 'install'
  if (!installs && known.state !== 'installed') {
    throw new Fault('MACHINE_HELD', decisionText(known))
  }
  const store = await storeFacts(context, known, installs).catch(async (error: unknown) => {
    await context.machines.apply(known.id, { kind: 'held', message: describeError(error) })
    throw error
  })
  const fresh = known.state === 'assigned' || known.state === 'installed'
  const record = installs && fresh ? await context.machines.apply(known.id, { kind: 'install-begun' }) : known
  const ticket = installs ? await context.enrolments.ticket(record, new Date()) : undefined
  if (installs) await context.machines.apply(record.id, { kind: 'config-served' })
  return configOf(context, record, {
    bases,
    store,
    ticket: ticket && { url: `${bases.tlsBase}/v1/enrol`, token: ticket.token, caHash: context.caHash },
  })
}

/** The config of a machine from what is known of it. */
export function configOf(
  context: BootContext,
  record: MachineRecord,
  { bases, store, ticket }: { bases: Bases; store: StoreFacts; ticket: EnrolmentTicket | undefined },
): object {
  const group = groupOf(context, record)
  return machineConfig({
    facts: {
      formatVersion: 1,
      id: record.id,
      name: record.name ?? record.id,
      group: record.group ?? group.id,
      role: record.role ?? 'worker',
      address: record.address ?? '',
      bootUrl: bases.base,
      bootTlsUrl: bases.tlsBase,
      storeEndpoints: store.endpoints,
    },
    mac: record.mac,
    group: group.metadata?.kiln ?? KilnGroup.parse({}),
    profileConfig: profileConfig(context, profileOf(context, group)),
    ticket,
    kvEnvironment: store.kvEnvironment,
    releaseKeys: context.data.releaseKeys,
  })
}

/** The machine of a request, known or new, assigned when its group says what it is. */
async function meet(
  context: BootContext,
  labels: Labels,
  group: RankedGroup | undefined,
): Promise<MachineRecord | undefined> {
  const record = await context.machines.see(labels)
  if (!record || !group || (record.state !== 'discovered' && record.state !== 'assigned')) return record
  const proposal = proposeAssignment(group, record.mac)
  switch (proposal.kind) {
    case 'not-kiln':
      return record
    case 'hold':
      return record.message === proposal.message
        ? record
        : context.machines.apply(record.id, { ...proposal, kind: 'held' })
    case 'assign':
      return assign(context, record, proposal.assignment)
  }
}

/** Assigns a machine by its group, or says in its record why that is not possible. */
async function assign(
  context: BootContext,
  record: MachineRecord,
  assignment: MachineAssignment,
): Promise<MachineRecord> {
  if (sameAssignment(record, assignment)) return record
  const conflict = assignmentConflict(record, assignment, context.machines.values(), context.cluster.record)
  if (conflict) return context.machines.apply(record.id, { kind: 'held', message: conflict.message })
  const assigned = await context.machines.apply(record.id, { kind: 'assigned', assignment })
  await context.audit.write({
    action: 'machine.assign',
    outcome: 'allowed',
    machine: assigned.id,
    by: `group ${assignment.group}`,
    detail: `${record.mac} ${assignment.role} ${assignment.address}`,
  })
  return assigned
}

async function note(context: BootContext, labels: Labels, message: string): Promise<void> {
  const record = context.machines.find(labels)
  if (!record || record.message === message) return
  await context.machines.apply(record.id, { kind: 'held', message }).catch(() => undefined)
}

const decisionText = (record: MachineRecord): string => {
  const decision = decideBoot(record)
  return decision.kind === 'wait' ? decision.message : `machine ${record.id} is ${record.state}`
}

export function groupOf(context: BootContext, record: MachineRecord): RankedGroup {
  const group = context.data.catalog.groupsById.get(record.group ?? '')
  if (!group) throw new Fault('GROUP_UNKNOWN', `group ${record.group} of machine ${record.id} does not exist`)
  return group
}

export function profileOf(context: BootContext, group: RankedGroup): Profile {
  const profile = context.data.catalog.profiles.get(group.profile)
  if (!profile)
    throw new Fault('PROFILE_UNKNOWN', `profile ${group.profile} of group ${group.id} does not exist`)
  return profile
}

export async function imagesOf(context: BootContext, profile: Profile, base: string): Promise<BootImages> {
  if (!profile.kiln) return requireImages(profile)
  const manifest = await context.releases.manifest(profile.kiln.release, context.data.releaseKeys)
  return releaseImages({ manifest, base, args: profile.kiln.args })
}

function requireImages(profile: Profile): BootImages {
  const images = profileImages(profile)
  if (!images) throw new Fault('PROFILE_UNKNOWN', `profile ${profile.id} has no kernel to boot`)
  return images
}

/** Text of the profile's raw config; undefined when the profile has none. */
function profileConfig(context: BootContext, profile: Profile): string | undefined {
  if (!profile.ignition_id) return undefined
  const config = context.data.ignitionConfig(profile.ignition_id)
  switch (config.kind) {
    case 'text':
      return config.text
    case 'missing':
      throw new Fault('CONFIG_MISSING', `ignition/${profile.ignition_id} does not exist`)
    case 'refused':
      throw new Fault(config.code, `ignition/${profile.ignition_id}: ${config.reason}`)
  }
}
