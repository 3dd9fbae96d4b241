import { expect, test } from 'vitest'
import { readUnitProblems } from './health.ts'

const unit = (id: string, lines: string): string => `Id=${id}\nLoadState=loaded\n${lines}\n`

test('active units and units that do not belong on this machine are no problem', () => {
  const text = [
    unit(
      'kiln-runtime.service',
      'ActiveState=active\nSubState=running\nConditionResult=yes\nConditionTimestampMonotonic=5',
    ),
    unit(
      'kiln-kv.service',
      'ActiveState=inactive\nSubState=dead\nConditionResult=no\nConditionTimestampMonotonic=9',
    ),
  ].join('\n')
  expect(readUnitProblems(text)).toEqual([])
})

test('failed, starting, missing and never started units are named', () => {
  const text = [
    unit(
      'a.service',
      'ActiveState=failed\nSubState=failed\nConditionResult=yes\nConditionTimestampMonotonic=5',
    ),
    unit(
      'b.service',
      'ActiveState=activating\nSubState=start\nConditionResult=yes\nConditionTimestampMonotonic=5',
    ),
    'Id=c.service\nLoadState=not-found\nActiveState=inactive\n',
    unit(
      'd.service',
      'ActiveState=inactive\nSubState=dead\nConditionResult=no\nConditionTimestampMonotonic=0',
    ),
  ].join('\n')
  expect(readUnitProblems(text)).toEqual([
    'a.service is failed (failed)',
    'b.service is activating (start)',
    'c.service is not-found',
    'd.service is inactive (dead)',
  ])
})
