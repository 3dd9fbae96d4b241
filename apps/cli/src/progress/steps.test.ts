import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { runSteps } from './steps.ts'

function out(): { live: false; stream: PassThrough; signal: AbortSignal; cancel: AbortController } {
  const cancel = new AbortController()
  return { live: false, stream: new PassThrough(), signal: cancel.signal, cancel }
}

test('steps run in order, and what they say are lines', async () => {
  const to = out()
  await runSteps(
    [
      { title: 'One', run: async (report) => void report.note('working') },
      { title: 'Two', run: async () => 'well' },
    ],
    to,
  )
  expect(String(to.stream.read()).replaceAll(/ *\d+ s {2}/g, '')).toBe('One\n  working\nTwo\n  well\n')
})

test('no step begins after the wish to end', async () => {
  const to = out()
  const ran: string[] = []
  const steps = ['one', 'two'].map((title) => ({
    title,
    run: async () => {
      ran.push(title)
      to.cancel.abort()
      return undefined
    },
  }))
  await expect(runSteps(steps, to)).rejects.toMatchObject({ code: 'CANCELLED' })
  expect(ran).toEqual(['one'])
})

test('a step that fails because of the wish to end is told as that', async () => {
  const to = out()
  const run = async (): Promise<undefined> => {
    to.cancel.abort()
    throw new Error('mkfs ended with SIGINT')
  }
  await expect(runSteps([{ title: 'one', run }], to)).rejects.toMatchObject({ code: 'CANCELLED' })
})
