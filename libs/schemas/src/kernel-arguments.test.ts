import { expect, test } from 'vitest'
import { changedArguments, reservedArguments } from './kernel-arguments.ts'

const given = ['console=ttyS0', 'quiet', 'panic=10']

test('what should exist is there once, what should not is gone, the rest stays in its order', () => {
  const changes = { shouldExist: ['debug', 'quiet', 'debug'], shouldNotExist: ['panic=10'] }
  expect(changedArguments(given, changes)).toEqual(['console=ttyS0', 'quiet', 'debug'])
})

test('an argument that should and should not exist is there: it was asked for by name', () => {
  expect(changedArguments(['quiet'], { shouldExist: ['quiet'], shouldNotExist: ['quiet'] })).toEqual([
    'quiet',
  ])
})

test('one entry may hold several arguments, and quotes hold spaces together', () => {
  const changes = { shouldExist: ['a=1 dyndbg="file a.c +p"', ' '], shouldNotExist: ['quiet panic=10'] }
  expect(changedArguments(given, changes)).toEqual(['console=ttyS0', 'a=1', 'dyndbg="file a.c +p"'])
})

test('arguments of Kiln are found among others', () => {
  expect(reservedArguments({ shouldExist: ['a kiln.slot=b', 'x.kiln.y'] })).toEqual(['kiln.slot=b'])
})
