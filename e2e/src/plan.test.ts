import { expect, test } from 'vitest'
import { checkStories, lastUse, planLanes, planRun } from './plan.ts'
import { stories } from './stories.ts'
import type { Story } from './story.ts'

const story = (name: string, fixture?: Story['fixture']): Story => ({
  name,
  summary: name,
  budgetSeconds: 1,
  timeoutSeconds: 1,
  needs: [],
  fixture,
  run: async () => undefined,
})

const names = (plan: readonly Story[]): string[] => plan.map(({ name }) => name)

test('the registered stories are sound', () => {
  checkStories(stories)
  const always = stories.filter(({ onlyByName }) => !onlyByName)
  expect(names(planRun(stories, [])).sort()).toEqual(names(always).sort())
})

test('two stories of one name, and a budget beyond the timeout, are refused', () => {
  expect(() => checkStories([story('a'), story('a')])).toThrow('two stories are named a')
  expect(() => checkStories([{ ...story('a'), budgetSeconds: 2 }])).toThrow('budget of a')
  expect(() => checkStories([story('A b')])).toThrow('no name')
})

test('stories that share machines run in a row, in their own order', () => {
  const all = [story('a', 'one-machine'), story('b'), story('c', 'three-machines'), story('d', 'one-machine')]
  const plan = planRun(all, [])
  expect(names(plan)).toEqual(['a', 'd', 'b', 'c'])
  expect(plan.map((_, index) => lastUse(plan, index))).toEqual([false, true, false, true])
})

test('only what is asked for runs, in the listed order; an unknown name is refused', () => {
  const all = [story('a'), story('b'), story('c')]
  expect(names(planRun(all, ['c', 'a']))).toEqual(['a', 'c'])
  expect(() => planRun(all, ['x'])).toThrow('there is no story x')
})

test('a story that runs only by name is no part of a run of all', () => {
  const all = [story('a'), { ...story('b'), onlyByName: true }]
  expect(names(planRun(all, []))).toEqual(['a'])
  expect(names(planRun(all, ['b']))).toEqual(['b'])
})

test('stories of one machine have two lanes, those of three run after them', () => {
  const all = [story('a'), story('b', 'one-machine'), story('c', 'three-machines'), story('d')]
  const { beside, alone } = planLanes(all, 2)
  expect(beside.map(names)).toEqual([['b'], ['a', 'd']])
  expect(names(alone)).toEqual(['c'])
  expect(planLanes(all, 1).beside.map(names)).toEqual([['a', 'b', 'd']])
  expect(planLanes([all[2]!], 2).beside).toEqual([])
})
