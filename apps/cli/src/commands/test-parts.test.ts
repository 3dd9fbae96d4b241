import { expect, test } from 'vitest'
import { seedsDefault, testStages } from './test-parts.ts'

const simulationArgs = (seeds?: number): string[] =>
  testStages('/repository', 'node', seeds)
    .flat(2)
    .find(({ title }) => title === 'simulation')!.commands[0]!.args

test('the number of seeds of the simulation can be chosen', () => {
  expect(simulationArgs().join(' ')).toContain(`--seeds ${seedsDefault} `)
  expect(simulationArgs(7).join(' ')).toContain('--seeds 7 ')
})
