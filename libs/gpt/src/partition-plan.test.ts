import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { partitionTypes } from './guid.ts'
import {
  describePartitionAction,
  type FoundDisk,
  type PartitionSpec,
  planPartitions,
} from './partition-plan.ts'
import { emptyTable, type GptReading, type GptTable } from './table.ts'

const folder = new URL('testdata/', import.meta.url)
const types: Record<string, string> = partitionTypes
const mebibyte = 1024 * 1024

/** GUIDs that count up, so that plans can be compared. */
function counting(): () => string {
  let next = 0
  return () => `00000000-0000-4000-8000-${String(++next).padStart(12, '0')}`
}

type Scenario = { found: FoundDisk; specs: PartitionSpec[]; wipeTable: boolean }

/** Reads the commands of one block; `table` and `want` take key=value pairs, sizes are in MiB. */
function readScenario(commands: string[]): Scenario {
  const scenario: Scenario = {
    found: { sectorBytes: 512, sectors: 0, reading: { kind: 'none' }, busy: [] },
    specs: [],
    wipeTable: false,
  }
  let table: GptTable | undefined
  for (const command of commands) {
    const [verb, ...words] = command.split(' ')
    const pairs = Object.fromEntries(words.map((word) => word.split('=') as [string, string]))
    const { found } = scenario
    switch (verb) {
      case 'disk':
        found.sectorBytes = Number(pairs['sector'] ?? 512)
        found.sectors = (Number(pairs['size']) * mebibyte) / found.sectorBytes
        found.reading = (
          pairs['holds'] === 'broken'
            ? { kind: 'broken', problems: ['primary: header CRC is wrong'] }
            : { kind: pairs['holds'] ?? 'none' }
        ) as GptReading
        break
      case 'has': {
        table ??= emptyTable({ ...found, diskGuid: 'AAAAAAAA-0000-4000-8000-000000000000' })
        const grain = mebibyte / found.sectorBytes
        const startLba = Number(pairs['start']) * grain
        table.partitions.push({
          number: Number(pairs['number']),
          label: pairs['label'] ?? '',
          startLba,
          endLba: startLba + Number(pairs['size']) * grain - 1,
          typeGuid: types[pairs['type'] ?? 'linux']!,
          guid: pairs['guid'] ?? 'BBBBBBBB-0000-4000-8000-000000000000',
          attributes: 0n,
        })
        found.reading = { kind: 'table', table, problems: [] }
        break
      }
      case 'busy':
        found.busy = words.map(Number)
        break
      case 'want':
        scenario.specs.push({
          number: pairs['number'] === undefined ? undefined : Number(pairs['number']),
          label: pairs['label'],
          startMiB: pairs['start'] === undefined ? undefined : Number(pairs['start']),
          sizeMiB: pairs['size'] === undefined ? undefined : Number(pairs['size']),
          typeGuid: pairs['type'] === undefined ? undefined : types[pairs['type']],
          guid: pairs['guid'],
          wipePartitionEntry: words.includes('wipe') || undefined,
          resize: words.includes('resize') || undefined,
          shouldExist: words.includes('absent') ? false : undefined,
        })
        break
      case 'wipe-table':
        scenario.wipeTable = true
        break
      default:
        throw new Error(`unknown command ${command}`)
    }
  }
  return scenario
}

function run({ found, specs, wipeTable }: Scenario): string {
  const plan = planPartitions({ wipeTable, partitions: specs }, found, counting())
  if (!plan.ok) return plan.refusals.map((refusal) => `refused: ${refusal}\n`).join('')
  const lines = plan.actions.map((action) => describePartitionAction(action, found.sectorBytes))
  return [...lines, plan.changes ? 'write' : 'nothing to write'].map((line) => `${line}\n`).join('')
}

for (const name of readdirSync(folder).filter((file) => file.endsWith('.txt'))) {
  const blocks = readFileSync(new URL(name, folder), 'utf8').split('\n\n')
  const outcomes = blocks.map((block) => {
    const lines = block.trimEnd().split('\n')
    const end = lines.indexOf('----')
    const title = lines[0]!.replace(/^# /, '')
    const actual = run(readScenario(lines.slice(1, end).filter((line) => !line.startsWith('#'))))
    return {
      title,
      given: lines.slice(0, end),
      expected: lines.slice(end + 1).join('\n'),
      actual: actual.trimEnd(),
    }
  })
  if (process.env['UPDATE'] === '1') {
    const text = outcomes.map(({ given, actual }) => [...given, '----', actual].join('\n')).join('\n\n')
    writeFileSync(new URL(name, folder), `${text}\n`)
  }
  for (const { title, expected, actual } of outcomes) {
    test(`${name}: ${title}`, () => {
      expect(actual).toBe(process.env['UPDATE'] === '1' ? actual : expected)
    })
  }
}

const anyPartition = fc.record(
  {
    number: fc.integer({ min: 0, max: 6 }),
    label: fc.constantFrom('a', 'b', 'c', 'd'),
    startMiB: fc.integer({ min: 0, max: 80 }),
    sizeMiB: fc.integer({ min: 0, max: 40 }),
    wipePartitionEntry: fc.boolean(),
    resize: fc.boolean(),
  },
  { requiredKeys: ['label'] },
)

test('a plan never overlaps, never leaves the disk, and a second run of it changes nothing', () => {
  fc.assert(
    fc.property(
      fc.array(anyPartition, { maxLength: 5 }),
      fc.array(anyPartition, { maxLength: 5 }),
      (first, second) => {
        const disk = { sectorBytes: 512, sectors: (100 * mebibyte) / 512, busy: [] }
        const unique = (specs: PartitionSpec[]): PartitionSpec[] => {
          const seen = new Set<unknown>()
          return specs.filter(({ number, label }) => {
            const fresh = !seen.has(label) && (!number || !seen.has(number))
            seen.add(label)
            if (number) seen.add(number)
            return fresh
          })
        }
        let reading: GptReading = { kind: 'none' }
        for (const specs of [unique(first), unique(second)]) {
          const plan = planPartitions({ partitions: specs }, { ...disk, reading }, counting())
          if (!plan.ok) {
            expect(plan.refusals.length).toBeGreaterThan(0)
            continue
          }
          const sorted = [...plan.table.partitions].sort((a, b) => a.startLba - b.startLba)
          for (const [index, partition] of sorted.entries()) {
            expect(partition.startLba).toBeGreaterThanOrEqual(plan.table.firstUsableLba)
            expect(partition.endLba).toBeLessThanOrEqual(plan.table.lastUsableLba)
            expect(partition.startLba).toBeGreaterThan(sorted[index - 1]?.endLba ?? 0)
          }
          expect(new Set(sorted.map(({ number }) => number)).size).toBe(sorted.length)
          reading = { kind: 'table', table: plan.table, problems: [] }
          const fixed = specs.filter(({ startMiB, sizeMiB }) => startMiB && sizeMiB)
          const again = planPartitions({ partitions: fixed }, { ...disk, reading }, counting())
          expect(again).toMatchObject({ ok: true, changes: false })
        }
      },
    ),
    { numRuns: 500 },
  )
})
