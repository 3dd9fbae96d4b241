import { decodePlan } from '@kiln/linux'
import { expect, test } from 'vitest'
import { answerFront } from './planner.ts'
import { decodeRequest, questionBytesMax } from './request.ts'

type Fact = [tag: number, bytes: string | Buffer]
const tags = { command: 1, argument: 2, cwd: 3, listenFds: 4, mounts: 5, cgroup: 6, document: 7, end: 11 }

function question(facts: Fact[]): Buffer {
  return Buffer.concat(
    facts.map(([tag, bytes]) => {
      const head = Buffer.alloc(8)
      head.writeUInt32LE(tag, 0)
      head.writeUInt32LE(Buffer.byteLength(bytes), 4)
      return Buffer.concat([head, Buffer.from(bytes as string)])
    }),
  )
}

const process = { args: ['sh'], cwd: '/', capabilities: { bounding: ['CAP_KILL', 'CAP_NEW\nER'] } }
const document = JSON.stringify({
  ociVersion: '1.2.0',
  root: { path: 'rootfs' },
  process,
  linux: { namespaces: [{ type: 'mount' }] },
})
const whole: Fact[] = [
  [tags.command, 'create'],
  [tags.argument, 'c1'],
  [tags.cwd, '/srv'],
  [tags.mounts, ''],
  [tags.cgroup, '0::/\n'],
  [tags.document, document],
  [tags.end, ''],
]
const withFact = (...fact: Fact): Fact[] => [fact, ...whole]

test('a question that was cut anywhere is refused, also between two facts', () => {
  const bytes = question(whole)
  expect(decodeRequest(bytes)).toMatchObject({
    command: 'create',
    args: ['c1'],
    cwd: '/srv',
    rootless: false,
  })
  for (let length = 0; length < bytes.length; length++)
    expect(() => decodeRequest(bytes.subarray(0, length)), `${length} bytes`).toThrow(/front's question/)
})

test.each<[string, Fact[]]>([
  ['something follows its end', [...whole, [tags.end, '']]],
  ['different versions', withFact(12, '')],
  ['different versions', withFact(0, '')],
  ['command more than 1 times', withFact(tags.command, 'run')],
  ['argument more than 1024 times', [...Array.from({ length: 1024 }, (): Fact => [2, 'x']), ...whole]],
  ['cwd is missing', whole.filter(([tag]) => tag !== tags.cwd)],
  ['mounts is missing', whole.filter(([tag]) => tag !== tags.mounts)],
  ['listenFds has 20 bytes', withFact(tags.listenFds, '1'.repeat(20))],
  ['LISTEN_FDS is "-1"', withFact(tags.listenFds, '-1')],
  ['LISTEN_FDS is "1025"', withFact(tags.listenFds, '1025')],
  ['argument is not UTF-8', withFact(tags.argument, Buffer.from([0x61, 0xff]))],
  ['argument holds a NUL', withFact(tags.argument, 'a\0b')],
  ['"srv" is not absolute', [[tags.cwd, 'srv'], ...whole.filter(([tag]) => tag !== tags.cwd)]],
])('a bad question is refused by what is wrong with it: %s', (message, facts) => {
  expect(() => decodeRequest(question(facts))).toThrow(message)
})

test('a question beyond its bound is refused before it is read', () => {
  expect(() => decodeRequest(Buffer.alloc(questionBytesMax + 1))).toThrow(
    `more than ${questionBytesMax} bytes`,
  )
})

test('the front gets warnings, then a plan, or a sentence; never an exception', () => {
  const answer = answerFront(question(whole))
  const line = 'Wunknown capabilities are left out: "CAP_NEW\\nER"\n'
  expect(answer.toString('utf8', 0, line.length + 1)).toBe(`${line}P`)
  expect(decodePlan(answer.subarray(line.length + 1)).records).toContainEqual(['id', 'c1'])
  expect(answerFront(Buffer.from('nonsense')).toString()).toMatch(/^E/)
  const empty = whole.filter(([tag]) => tag !== tags.document)
  expect(answerFront(question(empty)).toString()).toBe('Econfig.json: not JSON: Unexpected end of JSON input')
})
