import { ChannelChange, ChannelHalt, type ChannelRecord, SegmentName } from '@kiln/schemas'
import { Fault } from '@kiln/service'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { BootContext } from './boot-context.ts'
import { body } from './request-body.ts'
import {
  basesOf,
  callerName,
  callerOf,
  machineRequired,
  overTls,
  requireGroup,
  requireOperator,
} from './request-origin.ts'

/** Releases for groups of machines: what to run, publish, halt. */
export function channelRoutes(app: FastifyInstance, context: BootContext): void {
  const answer = (record: ChannelRecord, request: FastifyRequest) => ({
    version: record.version,
    manifestUrl: `${baseOf(context, request)}/assets/releases/${record.version}/manifest.json`,
    state: record.state,
    allowDowngrade: record.allowDowngrade,
    reason: record.reason,
    machine: record.machine,
  })

  app.get('/v1/channels', () => context.channels.list())
  app.get<{ Params: { group: string } }>('/v1/channels/:group', (request) => {
    // Over plain HTTP anybody may look, as with the assets; who comes with a certificate is asked for the right one.
    if (overTls(request))
      requireGroup(context, request, { group: request.params.group, doing: 'reads its channel' })
    const record = context.channels.get(request.params.group)
    if (!record)
      throw new Fault('CHANNEL_UNKNOWN', `group ${request.params.group.slice(0, 128)} has no channel`)
    return answer(record, request)
  })

  app.put<{ Params: { group: string } }>('/v1/channels/:group', async (request) => {
    await requireOperator(context, request, 'channel.publish')
    const group = body(SegmentName, request.params.group)
    const wanted = body(ChannelChange, request.body)
    if (!context.data.catalog.groupsById.has(group))
      throw new Fault('GROUP_UNKNOWN', `there is no group ${group}`)
    await context.releases.manifest(wanted.version, context.data.releaseKeys)
    const record = await context.channels.publish(group, wanted)
    const detail = `${group} ${wanted.version}${wanted.allowDowngrade ? ' (downgrade allowed)' : ''}`
    await context.audit.write({
      action: 'channel.publish',
      outcome: 'allowed',
      by: 'operator',
      from: request.ip,
      detail,
    })
    return answer(record, request)
  })

  app.post<{ Params: { group: string } }>('/v1/channels/:group/halt', async (request) => {
    const caller = callerOf(request)
    const group = body(SegmentName, request.params.group)
    const halt = body(ChannelHalt, request.body)
    const member = caller.kind === 'machine' && context.machines.get(caller.id)?.group === group
    const entry = {
      action: 'channel.halt',
      by: callerName(caller),
      from: request.ip,
      detail: `${group} ${halt.version ?? ''} ${halt.reason}`,
    }
    if (!member && caller.kind !== 'operator') {
      await context.audit.write({ ...entry, outcome: 'refused' })
      throw machineRequired(request, `only an operator or a machine of group ${group} halts its rollout`)
    }
    if (caller.kind === 'machine' && halt.version === undefined)
      throw new Fault('BODY_INVALID', 'version: a machine names the release that failed on it')
    const machine = caller.kind === 'machine' ? caller.id : halt.machine
    try {
      const { version, reason } = halt
      const record = await context.channels.halt(group, { version, reason, machine })
      await context.audit.write({ ...entry, outcome: 'allowed' })
      return answer(record, request)
    } catch (error) {
      await context.audit.write({ ...entry, outcome: 'refused' })
      throw error
    }
  })
}

/** A manifest is read over the port that the channel was read over. */
function baseOf(context: BootContext, request: FastifyRequest): string {
  const { base, tlsBase } = basesOf(context, request)
  return overTls(request) ? tlsBase : base
}
