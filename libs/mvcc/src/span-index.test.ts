import fc from 'fast-check'
import { expect, test } from 'vitest'
import { contains, type Span } from './key.ts'
import { SpanIndex } from './span-index.ts'
import type { Watcher } from './watcher.ts'

const watcherOf = (span: Span): Watcher => ({ span, group: undefined }) as unknown as Watcher

test('the watchers of a key are those whose span has it, however they came and went', () => {
  const key = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 3 })
  const span = fc.record({ start: key, end: fc.option(key, { nil: undefined }), isSingle: fc.boolean() })
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ add: span }) },
    fc.record({ remove: fc.nat(200) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200, size: 'max' }), fc.array(key), (steps, keys) => {
      const index = new SpanIndex()
      const watchers: Watcher[] = []
      for (const each of steps) {
        if ('add' in each) {
          const { start, end, isSingle } = each.add
          const watcher = watcherOf({ start, end: isSingle ? `${start}\0` : end })
          watcher.group = index.add(watcher)
          watchers.push(watcher)
        } else {
          const [gone] = watchers.splice(each.remove % (watchers.length + 1), 1)
          if (gone) index.remove(gone, gone.group!)
        }
      }
      for (const each of keys) {
        const found: Watcher[] = []
        index.visit(each, (group) => found.push(...group.watchers))
        expect(new Set(found)).toEqual(new Set(watchers.filter((watcher) => contains(watcher.span, each))))
        expect(found).toHaveLength(new Set(found).size)
      }
      expect(index.isEmpty).toBe(watchers.length === 0)
    }),
    { numRuns: 200 },
  )
})
