import { Fault } from '@kiln/service'
import type { FixtureName, Story } from './story.ts'

/** Throws for two stories of one name and for numbers that make no sense. */
export function checkStories(stories: readonly Story[]): void {
  const names = new Set<string>()
  for (const { name, budgetSeconds, timeoutSeconds } of stories) {
    if (!/^[a-z][a-z0-9-]*$/.test(name)) throw new Fault('STORY_INVALID', `${name} is no name of a story`)
    if (names.has(name)) throw new Fault('STORY_INVALID', `two stories are named ${name}`)
    if (!(budgetSeconds > 0 && budgetSeconds <= timeoutSeconds)) {
      throw new Fault('STORY_INVALID', `the budget of ${name} is not between 0 and its timeout`)
    }
    names.add(name)
  }
}

/** The stories that are asked for (all but those that run only by name, if none is named), those that share machines in a row, else as listed. */
export function planRun(stories: readonly Story[], asked: readonly string[]): Story[] {
  checkStories(stories)
  const unknown = asked.filter((name) => !stories.some((story) => story.name === name))
  if (unknown.length > 0) {
    throw new Fault('STORY_UNKNOWN', `there is no story ${unknown.join(', ')}`, {
      remedy: `there are ${stories.map(({ name }) => name).join(', ')}`,
    })
  }
  const chosen =
    asked.length === 0
      ? stories.filter(({ onlyByName }) => !onlyByName)
      : stories.filter(({ name }) => asked.includes(name))
  const placed = new Set<FixtureName>()
  return chosen.flatMap((story) => {
    const { fixture } = story
    if (fixture === undefined) return [story]
    if (placed.has(fixture)) return []
    placed.add(fixture)
    return chosen.filter((other) => other.fixture === fixture)
  })
}

/** True when no story after this place of the run needs the fixture. */
export function lastUse(plan: readonly Story[], index: number): boolean {
  const fixture = plan[index]?.fixture
  return fixture !== undefined && !plan.slice(index + 1).some((later) => later.fixture === fixture)
}

/**
 * What may run side by side: a lane of stories that share one machine, and a lane of those that start one of their own,
 * since an emulated machine keeps one core busy. Stories of three machines want the host for themselves, afterwards.
 */
export function planLanes(plan: readonly Story[], lanes: number): { beside: Story[][]; alone: Story[] } {
  const isAlone = ({ fixture }: Story): boolean => fixture === 'three-machines'
  const small = plan.filter((story) => !isAlone(story))
  const beside =
    lanes < 2 ? [small] : [small.filter(({ fixture }) => fixture), small.filter(({ fixture }) => !fixture)]
  return { beside: beside.filter((lane) => lane.length > 0), alone: plan.filter(isAlone) }
}
