import { X509Certificate } from 'node:crypto'
import { csrKeyHash } from '@kiln/pki'
import {
  EnrolmentRequest,
  MachineAssignment,
  type MachineRecord,
  ReinstallRequest,
  RenewalRequest,
  StageReport,
} from '@kiln/schemas'
import { Fault, version } from '@kiln/service'
import type { FastifyInstance } from 'fastify'
import { assignmentConflict, sameAssignment } from './assignment.ts'
import type { BootContext } from './boot-context.ts'
import { certifyMachine } from './enrolment.ts'
import { machinePlan } from './machine-plan.ts'
import { mayWithdraw } from './machine-state.ts'
import { rateLimit } from './rate-limit.ts'
import { body } from './request-body.ts'
import {
  basesOf,
  callerName,
  callerOf,
  machineRequired,
  overTls,
  renewerOf,
  requireMachine,
  requireOperator,
} from './request-origin.ts'

const reportBytesMax = 4096
const reportsPerSecond = 20
const dayMs = 86_400_000
/** What kiln-update reports, which has the machine's certificate; everything before is said by the first boot or the initramfs. */
const enrolledStages: StageReport['stage'][] = ['units', 'ready']

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

  app.get<{ Params: { id: string } }>('/v1/machines/:id/plan', async (request) => {
    await requireOperator(context, request, 'machine.plan')
    return machinePlan(context, known(context, request.params.id), basesOf(context, request))
  })

  app.post<{ Params: { id: string } }>(
    '/v1/machines/:id/report',
    { bodyLimit: reportBytesMax },
    async (request, reply) => {
      const record = known(context, request.params.id)
      const secure = overTls(request)
      if (secure) requireMachine(request, record.id, 'reports for itself')
      // Counted apart, so that nobody on the plain port keeps a machine from being heard.
      if (!mayReport(`${secure} ${record.id}`))
        throw new Fault('REPORTS_TOO_MANY', `machine ${record.id} reports too often`)
      const report = body(StageReport, request.body)
      if (!secure && record.enrolledAt !== undefined && enrolledStages.includes(report.stage))
        throw new Fault(
          'TLS_REQUIRED',
          `machine ${record.id} is enrolled and reports ${report.stage} over TLS`,
        )
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
    const { keep } = body(ReinstallRequest, request.body ?? {})
    const after = await context.machines.apply(record.id, { kind: 'reinstall-allowed', keep })
    await context.audit.write({
      action: 'machine.reinstall',
      outcome: 'allowed',
      machine: after.id,
      by: 'operator',
      ...(keep.length > 0 ? { detail: `keeps ${keep.join(', ')}` } : {}),
    })
    return after
  })

  app.delete<{ Params: { id: string } }>('/v1/machines/:id/reinstall', async (request) => {
    await requireOperator(context, request, 'machine.reinstall')
    const record = known(context, request.params.id)
    if (record.reinstall !== true && mayWithdraw(record)) return record
    const after = await context.machines.apply(record.id, { kind: 'reinstall-withdrawn' })
    if (!mayWithdraw(after)) {
      throw new Fault(
        'REINSTALL_BEGUN',
        `machine ${record.id} is ${after.state}: its install has begun and cannot be withdrawn`,
        { remedy: 'let it come to its end' },
      )
    }
    await context.audit.write({
      action: 'machine.reinstall',
      outcome: 'allowed',
      machine: after.id,
      by: 'operator',
      detail: 'withdrawn',
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
    const { csr } = body(RenewalRequest, request.body)
    const now = new Date()
    const graceMs = context.settings.renewExpiredDays * dayMs
    const renewer = renewerOf(request, { ca: context.ca.certificate, graceMs, now })
    const record = renewer && context.machines.get(renewer.id)
    const by = renewer?.id ?? callerName(callerOf(request))
    const entry = { action: 'machine.renew', by, from: request.ip, ...(record ? { machine: record.id } : {}) }
    if (!renewer || !record) {
      const fault = machineRequired(request, 'only a machine with a valid certificate renews it')
      await context.audit.write({ ...entry, outcome: 'refused', detail: fault.code })
      throw fault
    }
    // A certificate is renewed for the key that enrolled last: that of an earlier install, or a stolen one, ends for good.
    const keyHash = await csrKeyHash(csr)
    const enrolled = await context.enrolments.enrolledKey(record.id)
    if (keyHash !== renewer.keyHash || (enrolled !== undefined && enrolled !== keyHash)) {
      await context.audit.write({ ...entry, outcome: 'refused', detail: 'RENEW_KEY_WRONG' })
      throw new Fault(
        'RENEW_KEY_WRONG',
        `the request is not for the key that machine ${record.id} enrolled with`,
      )
    }
    const certificate = await certifyMachine(context.ca, csr, record, now)
    const until = new X509Certificate(certificate).validToDate.toISOString()
    await context.audit.write({ ...entry, outcome: 'allowed', detail: `until ${until}` })
    context.log.info({ machine: record.id, until }, 'certificate renewed')
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
