import * as dns from 'dns-packet'
import type { ServiceAnswer } from './service-answer.ts'

/** EDNS size for UDP that no path splits (DNS flag day 2020). */
const udpBytesMost = 1232
/** RFC 1035 section 4.2.1, for clients without EDNS. */
const udpBytesPlain = 512
const tcpBytesMost = 65_535
const headerBytes = 12

const codes = { NOERROR: 0, FORMERR: 1, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5 } as const
/** RFC 6891 section 9: an extended code, the upper bits of which go into the OPT record. */
const badVersion = 16

/** What it takes for the packet library to write a name as it was read: text without white space and labels of at most 63 bytes. */
const plainName = /^(\.|[!-~]{1,253})$/
const labelMost = 63

/**
 * The response to a request as it came from the wire (RFC 1035, RFC 6891); undefined for what is none and must not be
 * answered. Over UDP what does not fit is left out and marked as truncated, so that the client asks again over TCP.
 */
export function respond(
  request: Buffer,
  transport: 'udp' | 'tcp',
  answer: (question: dns.Question) => ServiceAnswer,
): Buffer | undefined {
  if (request.length < headerBytes || (request[2]! & 0x80) !== 0) return undefined
  const id = request.readUInt16BE(0)
  const flags = request.readUInt16BE(2) & dns.RECURSION_DESIRED
  const opcode = request.readUInt16BE(2) & 0x7800
  const fail = (code: number): Buffer =>
    dns.encode({ type: 'response', id, flags: flags | opcode | code, questions: [] })
  if (opcode !== 0) return fail(codes.NOTIMP)

  const packet = decode(request)
  const [question] = packet?.questions ?? []
  if (!packet || !question || packet.questions?.length !== 1) return fail(codes.FORMERR)
  if (!mayRepeat(question)) return fail(codes.REFUSED)
  const asked = packet.additionals?.find((each) => each.type === 'OPT')
  const opt = asked ? [optOf(0)] : []
  const { RECURSION_DESIRED, AUTHORITATIVE_ANSWER } = dns
  const base = {
    type: 'response' as const,
    id,
    flags: packet.flags! & RECURSION_DESIRED,
    questions: [question],
  }
  if (asked && asked.ednsVersion !== 0) return dns.encode({ ...base, additionals: [optOf(badVersion >> 4)] })

  const { code, answers, authorities, additionals } = answer(question)
  const authoritative = code === 'REFUSED' ? 0 : AUTHORITATIVE_ANSWER
  const whole: dns.Packet = {
    ...base,
    flags: base.flags | authoritative | codes[code],
    answers,
    authorities,
    additionals: [...additionals, ...opt],
  }
  const udpBytes = Math.min(udpBytesMost, Math.max(udpBytesPlain, asked?.udpPayloadSize ?? 0))
  const bytesMost = transport === 'udp' ? udpBytes : tcpBytesMost
  if (dns.encodingLength(whole) <= bytesMost) return dns.encode(whole)
  // Additional records are a courtesy (RFC 2782): those who need them ask.
  const short: dns.Packet = { ...whole, additionals: opt }
  if (dns.encodingLength(short) <= bytesMost) return dns.encode(short)
  if (transport === 'udp')
    return dns.encode({ ...short, flags: short.flags! | dns.TRUNCATED_RESPONSE, answers: [] })
  while (dns.encodingLength(short) > bytesMost)
    short.answers = short.answers!.slice(0, short.answers!.length >> 1)
  return dns.encode(short)
}

function decode(request: Buffer): dns.DecodedPacket | undefined {
  try {
    return dns.decode(request)
  } catch {
    return undefined
  }
}

function mayRepeat({ name, class: of }: dns.Question): boolean {
  return (
    plainName.test(name) &&
    (name === '.' || name.split('.').every((label) => label.length > 0 && label.length <= labelMost)) &&
    !String(of).startsWith('UNKNOWN')
  )
}

const optOf = (extendedRcode: number): dns.OptAnswer => ({
  type: 'OPT',
  name: '.',
  udpPayloadSize: udpBytesMost,
  extendedRcode,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
})
