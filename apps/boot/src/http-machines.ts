import { EnrolmentRequest, MachineAssignment, type MachineRecord, StageReport } from '@kiln/schemas'
import { Fault, version } from '@kiln/service'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { assignmentConflict, sameAssignment } from './assignment.ts'
import type { BootContext } from './boot-context.ts'
import { certifyMachine } from './enrolment.ts'
import { rateLimit } from './rate-limit.ts'
import { body } from './request-body.ts'
import { callerName, callerOf, requireOperator } from './request-origin.ts'

const reportBytesMax = 4096
const reportsPerSecond = 20

/** Machines: lists, stage reports, assignment, reinstall, enrolment. */
export function machineRoutes(app: FastifyInstance, context: BootContext): void {
  const mayReport = rateLimit(reportsPerSecond, () => performance.now())

  app.get('/healthz', () => ({ status: 'ok' }))
  app.get('/v1/status', () => ({
    version,
    problems: [...context.data.problems, ...context.machines.problems, ...context.channels.problems].slice(
      0,
      1000,
    ),
    groups: context.data.catalog.groups.length,
    machines: context.machines.list().length,
    cluster: context.cluster.record?.members ?? null,
    caHash: context.caHash,
  }))
  app.get('/v1/machines', () => context.machines.list())
  app.get<{ Params: { id: string } }>('/v1/machines/:id', (request) => known(context, request.params.id))

  app.post<{ Params: { id: string } }>(
    '/v1/machines/:id/report',
    { bodyLimit: reportBytesMax },
    async (request, reply) => {
      const record = known(context, request.params.id)
      if (!mayReport(record.id)) throw new Fault('REPORTS_TOO_MANY', `machine ${record.id} reports too often`)
      const report = body(StageReport, request.body)
      const message = report.message?.replaceAll(/[\x00-\x08\x0b-\x1f\x7f]/g, '?')
      const after = await context.machines.apply(record.id, {
        kind: 'reported',
        at: new Date().toISOString(),
        report: { ...report, message },
      })
      const { bootId: _bootId, ...fields } = report
      const say = report.status === 'failed' ? context.log.warn : context.log.info
      say.call(context.log, { machine: after.id, state: after.state, ...fields, message }, 'machine reported')
      return reply.code(204).send()
    },
  )

  app.put<{ Params: { id: string } }>('/v1/machines/:id', async (request) => {
    await requireOperator(context, request, 'machine.assign')
    const record = known(context, request.params.id)
    const assignment = body(MachineAssignment, request.body)
    if (!context.data.catalog.groupsById.has(assignment.group)) {
      throw new Fault('GROUP_UNKNOWN', `there is no group ${assignment.group}`)
    }
    const conflict = assignmentConflict(record, assignment, context.machines.values(), context.cluster.record)
    if (conflict) throw new Fault(conflict.code, conflict.message)
    const after = sameAssignment(record, assignment)
      ? record
      : await context.machines.apply(record.id, { kind: 'assigned', assignment })
    const detail = `${after.mac} ${assignment.role} ${assignment.address}`
    await context.audit.write({
      action: 'machine.assign',
      outcome: 'allowed',
      machine: after.id,
      by: 'operator',
      detail,
    })
    return after
  })

  app.post<{ Params: { id: string } }>('/v1/machines/:id/reinstall', async (request) => {
    await requireOperator(context, request, 'machine.reinstall')
    const record = known(context, request.params.id)
    if (record.state === 'discovered') {
      throw new Fault(
        'MACHINE_NOT_ASSIGNED',
        `machine ${record.id} is not assigned, there is nothing to install`,
      )
    }
    const after = await context.machines.apply(record.id, { kind: 'reinstall-allowed' })
    await context.audit.write({
      action: 'machine.reinstall',
      outcome: 'allowed',
      machine: after.id,
      by: 'operator',
    })
    return after
  })

  enrolmentRoutes(app, context)
}

function enrolmentRoutes(app: FastifyInstance, context: BootContext): void {
  app.post('/v1/enrol', { bodyLimit: 16_384 }, async (request) => {
    requireTls(request.raw.socket)
    const wanted = body(EnrolmentRequest, request.body)
    const entry = { action: 'machine.enrol', machine: wanted.machine, by: 'anonymous', from: request.ip }
    const record = context.machines.get(wanted.machine)
    // An unknown machine gets the answer of a wrong token: nothing is told about which machines exist.
    if (!record || record.state === 'discovered') {
      await context.audit.write({ ...entry, outcome: 'refused', detail: 'not assigned' })
      throw new Fault('ENROL_TOKEN_WRONG', 'the token is not the one of this machine')
    }
    const outcome = await context.enrolments.enrol(record, wanted, new Date())
    if (outcome.kind === 'refused') {
      await context.audit.write({ ...entry, outcome: 'refused', detail: outcome.code })
      if (outcome.alarm) {
        const message = `enrolment refused: ${outcome.reason} (from ${request.ip})`
        context.log.warn({ machine: record.id, code: outcome.code, from: request.ip }, 'enrolment refused')
        await context.machines.apply(record.id, { kind: 'alarmed', at: new Date().toISOString(), message })
      }
      throw new Fault(outcome.code, outcome.reason)
    }
    if (!outcome.repeated || record.enrolledAt === undefined) {
      await context.machines.apply(record.id, { kind: 'enrolled', at: new Date().toISOString() })
    }
    await context.audit.write({
      ...entry,
      outcome: 'allowed',
      detail: outcome.repeated ? 'repeated' : 'certified',
    })
    context.log.info({ machine: record.id, repeated: outcome.repeated }, 'machine enrolled')
    return outcome.reply
  })

  app.post('/v1/renew', { bodyLimit: 16_384 }, async (request) => {
    const caller = callerOf(request)
    const record = caller.kind === 'machine' ? context.machines.get(caller.id) : undefined
    if (!record) throw new Fault('MACHINE_REQUIRED', 'only a machine with a valid certificate renews it')
    const { csr } = body(z.strictObject({ csr: z.string().max(8192) }), request.body)
    const certificate = await certifyMachine(context.ca, csr, record, new Date())
    const by = callerName(caller)
    await context.audit.write({
      action: 'machine.renew',
      outcome: 'allowed',
      machine: record.id,
      by,
      from: request.ip,
    })
    return { certificate, ca: context.ca.certificate }
  })
}

function requireTls(socket: object): void {
  if (!('encrypted' in socket)) throw new Fault('TLS_REQUIRED', 'enrolment needs the TLS port')
}

function known(context: BootContext, id: string): MachineRecord {
  const record = context.machines.get(id)
  if (!record) throw new Fault('MACHINE_UNKNOWN', `no machine ${id.slice(0, 64)}`)
  return record
}
