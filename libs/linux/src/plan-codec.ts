import { assert, Fault } from '@kiln/service'
import {
  type Operation,
  operations,
  type Plan,
  type PlanKind,
  type PlanRecord,
  planKinds,
  planRecords,
  planVersion,
} from './plan.ts'

type PlanValue = number | bigint | string | Uint8Array

const magic = 'KILNPLAN'
const headerBytes = 24
const planBytesMax = 1 << 20
const textBytesMax = 128 << 10

/** The bytes kiln-init executes; layout in `native/plan.h`. A text with a NUL is refused: C would cut it there. */
export function encodePlan(plan: Plan): Buffer {
  return encodeRecords(plan.kind, plan.id, planRecords(plan))
}

/** The same from the records themselves, in the order in which they are executed. */
export function encodeRecords(kind: PlanKind, id: string, list: PlanRecord[]): Buffer {
  const records = list.map(encodeRecord)
  const length = records.reduce((sum, record) => sum + record.length, headerBytes)
  if (length > planBytesMax)
    throw new Fault('PLAN_TOO_LARGE', `the plan of ${id} has ${length} bytes, more than ${planBytesMax}`)
  const header = Buffer.alloc(headerBytes)
  header.write(magic, 0, 'latin1')
  header.writeUInt16LE(planVersion, 8)
  header.writeUInt16LE(planKinds[kind], 10)
  header.writeUInt32LE(length, 12)
  header.writeUInt32LE(records.length, 16)
  return Buffer.concat([header, ...records])
}

function encodeRecord([operation, ...values]: PlanRecord): Buffer {
  const [number, fields] = operations[operation]
  assert(values.length === fields.length, `${fields.length} fields for ${operation}`)
  const body = Buffer.concat(values.map((value, index) => encodeField(operation, fields[index]!, value)))
  const head = Buffer.alloc(8)
  head.writeUInt16LE(number, 0)
  head.writeUInt32LE(body.length, 4)
  return Buffer.concat([head, body])
}

function encodeField(operation: Operation, kind: string, value: PlanValue): Buffer {
  if (kind === 'b') {
    assert(value instanceof Uint8Array, `bytes in ${operation}`)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(value.length)
    return Buffer.concat([length, value])
  }
  if (kind === 's') {
    assert(typeof value === 'string', `a text in ${operation}`)
    const bytes = Buffer.from(value, 'utf8')
    if (bytes.includes(0)) throw new Fault('PLAN_TEXT_HAS_NUL', `a text of ${operation} holds a NUL byte`)
    if (bytes.length > textBytesMax)
      throw new Fault('PLAN_TOO_LARGE', `a text of ${operation} has ${bytes.length} bytes`)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(bytes.length)
    return Buffer.concat([length, bytes, Buffer.alloc(1)])
  }
  assert(typeof value === 'number' || typeof value === 'bigint', `a number in ${operation}`)
  const bytes = Buffer.alloc(kind === 'q' ? 8 : 4)
  if (kind === 'q') bytes.writeBigUInt64LE(BigInt(value))
  else bytes.writeUInt32LE(Number(value))
  return bytes
}

/** Reads records back, for tests and for `kiln-runtime` to show what was planned. */
export function decodePlan(bytes: Buffer): { kind: number; records: PlanRecord[] } {
  assert(bytes.toString('latin1', 0, 8) === magic, 'a plan')
  assert(bytes.readUInt16LE(8) === planVersion, 'a plan of this version')
  assert(bytes.readUInt32LE(12) === bytes.length, 'a whole plan')
  const names = new Map(Object.entries(operations).map(([name, [number]]) => [number, name as Operation]))
  const records: PlanRecord[] = []
  let at = headerBytes
  while (at < bytes.length) {
    const operation = names.get(bytes.readUInt16LE(at) as never)
    assert(operation !== undefined, 'a known operation')
    at += 8
    const values: PlanValue[] = []
    for (const kind of operations[operation][1]) {
      if (kind === 's') {
        const length = bytes.readUInt32LE(at)
        values.push(bytes.toString('utf8', at + 4, at + 4 + length))
        at += 5 + length
      } else if (kind === 'b') {
        const length = bytes.readUInt32LE(at)
        values.push(bytes.subarray(at + 4, at + 4 + length))
        at += 4 + length
      } else if (kind === 'q') {
        values.push(bytes.readBigUInt64LE(at))
        at += 8
      } else {
        values.push(bytes.readUInt32LE(at))
        at += 4
      }
    }
    records.push([operation, ...values])
  }
  assert(records.length === bytes.readUInt32LE(16), 'as many records as announced')
  return { kind: bytes.readUInt16LE(10), records }
}
