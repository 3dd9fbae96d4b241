import { isIPv4, isIPv6 } from 'node:net'
import type { Answer, Question, SrvAnswer } from 'dns-packet'
import type { ServiceDirectory, ServiceQuery } from './service-directory.ts'
import type { ServiceInstance } from './service-entries.ts'

/** The zone that every machine answers for by itself. */
export const serviceZone = 'svc.kiln'

/** What is said may be repeated for this long: short, as it must follow a failed probe. Also for names that are not there. */
export const answerTtlSeconds = 1
/** Instances that one answer names at most; a larger service is answered with other ones each time. */
export const instancesMax = 256

export type ResponseCode = 'NOERROR' | 'FORMERR' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED'

export type ServiceAnswer = {
  code: ResponseCode
  answers: Answer[]
  authorities: Answer[]
  additionals: Answer[]
}

/**
 * Answers a question for the zone (RFC 1035, RFC 2782, RFC 2308). Names, from the right: service, machine, pod; before them
 * `_<port>._<protocol>` for SRV. Only ready instances are named. A service without one exists all the same: no error, and no
 * answer. Names of other zones are refused. `random` yields from 0 to below 1.
 */
export function answerQuestion(
  question: Question,
  directory: Pick<ServiceDirectory, 'find'>,
  random: () => number,
): ServiceAnswer {
  const name = question.name.toLowerCase()
  if (name !== serviceZone && !name.endsWith(`.${serviceZone}`)) return answer({ code: 'REFUSED' })
  if ((question.class ?? 'IN') !== 'IN' || question.type === 'AXFR' || question.type === 'IXFR')
    return answer({ code: 'REFUSED' })
  if (name === serviceZone) return apex(question)

  const asked = readName(name.slice(0, -serviceZone.length - 1))
  const found = asked && directory.find(asked)
  if (!found) return answer({ code: 'NXDOMAIN', authorities: [startOfAuthority] })
  const ready = shuffle(
    found.filter(({ record }) => record.ready),
    random,
  ).slice(0, instancesMax)
  const answers = asked.protocol === undefined ? addressAnswers(question, ready) : []
  const srv = wants(question, 'SRV') ? srvAnswers(question.name, asked, ready) : []
  answers.push(...srv)
  if (answers.length === 0) {
    // A port that no instance has, ready or not, is no name.
    const nameless = asked.port !== undefined && srvAnswers(question.name, asked, found).length === 0
    return answer({ code: nameless ? 'NXDOMAIN' : 'NOERROR', authorities: [startOfAuthority] })
  }
  const targets = new Set(srv.map(({ data }) => data.target))
  const additionals = ready
    .filter((instance) => targets.has(targetOf(instance)))
    .flatMap((instance) => addressesOf(targetOf(instance), instance))
  return answer({ answers, additionals })
}

type AskedName = ServiceQuery & { port?: string; protocol?: 'TCP' | 'UDP' | 'SCTP' }

function readName(text: string): AskedName | undefined {
  const labels = text.split('.')
  const service = labels.pop()!
  const asked: AskedName = { service }
  const last = labels.at(-1)
  if (last !== undefined && !last.startsWith('_')) asked.machine = labels.pop()!
  const before = labels.at(-1)
  if (asked.machine !== undefined && before !== undefined && !before.startsWith('_'))
    asked.pod = labels.pop()!
  if (labels.length === 0) return asked
  const protocol = labels.pop()!.slice(1).toUpperCase()
  if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') return undefined
  asked.protocol = protocol
  const port = labels.pop()
  if (port !== undefined) {
    if (!port.startsWith('_') || labels.length > 0) return undefined
    asked.port = port.slice(1)
  }
  return asked
}

function addressAnswers(question: Question, instances: ServiceInstance[]): Answer[] {
  const seen = new Set<string>()
  return instances
    .flatMap((instance) => addressesOf(question.name, instance))
    .filter((each) => {
      // Pods of one machine share its address.
      const fresh = wants(question, each.type) && !seen.has(each.data)
      if (fresh) seen.add(each.data)
      return fresh
    })
}

type AddressAnswer = { name: string; type: 'A' | 'AAAA'; ttl: number; data: string }

function addressesOf(name: string, { record }: ServiceInstance): AddressAnswer[] {
  return [record.address, ...(record.addresses ?? [])].flatMap((data): AddressAnswer[] => {
    if (isIPv4(data)) return [{ name, type: 'A', ttl: answerTtlSeconds, data }]
    // A zone names a link of another machine.
    const plain = isIPv6(data) && !data.includes('%')
    return plain ? [{ name, type: 'AAAA', ttl: answerTtlSeconds, data }] : []
  })
}

/** RFC 2782. The bare name of a service has all its ports. */
function srvAnswers(
  name: string,
  asked: AskedName,
  instances: ServiceInstance[],
): (SrvAnswer & { type: 'SRV' })[] {
  if (asked.protocol !== undefined && asked.port === undefined) return []
  return instances.flatMap((instance) =>
    instance.record.ports
      .filter(
        ({ name: port, protocol }) =>
          asked.protocol === undefined || (protocol === asked.protocol && port === asked.port),
      )
      .map(({ port }) => ({
        name,
        type: 'SRV' as const,
        ttl: answerTtlSeconds,
        data: { priority: 0, weight: 1, port, target: targetOf(instance) },
      })),
  )
}

const targetOf = ({ pod, machine, service }: ServiceInstance): string =>
  `${pod}.${machine}.${service}.${serviceZone}`

const wants = (question: Question, type: string): boolean =>
  question.type === type || (question.type as string) === 'ANY'

const startOfAuthority: Answer = {
  name: serviceZone,
  type: 'SOA',
  ttl: answerTtlSeconds,
  data: {
    mname: `ns.${serviceZone}`,
    rname: `hostmaster.${serviceZone}`,
    serial: 1,
    refresh: 60,
    retry: 60,
    expire: 60,
    minimum: answerTtlSeconds,
  },
}

function apex(question: Question): ServiceAnswer {
  return wants(question, 'SOA')
    ? answer({ answers: [startOfAuthority] })
    : answer({ authorities: [startOfAuthority] })
}

const answer = (parts: Partial<ServiceAnswer>): ServiceAnswer => ({
  code: 'NOERROR',
  answers: [],
  authorities: [],
  additionals: [],
  ...parts,
})

/** Fisher and Yates. */
function shuffle<T>(list: readonly T[], random: () => number): T[] {
  const mixed = [...list]
  for (let last = mixed.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    ;[mixed[last], mixed[other]] = [mixed[other]!, mixed[last]!]
  }
  return mixed
}
